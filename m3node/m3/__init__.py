"""The method: multi-crop, back-projection, NMS and votes, linking into 3-D lesions, masks, measurements."""
