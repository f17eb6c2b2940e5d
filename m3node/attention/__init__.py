"""Where a Gemma3-type model looks while it answers questions about images, how stable that is, and what to distrust.

A tool beside the flow, for researchers: nothing in the node imports it but the command ``m3node attention``. Loading,
generation, the one pass that reads attention back, and the drawing of heat maps are those of the detector ``medgemma``.
"""
