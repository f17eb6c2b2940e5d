"""Where the liver is: from a received SEG, a supplied mask, or by the embedded segmentation.

`find.find_liver` is the one way in; it gives a `region.LiverRegion`, or None when no liver is in view.
"""
