"""Where the liver is: from a received SEG, or by the embedded segmentation."""
