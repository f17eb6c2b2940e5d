"""What every picture with a heat map on it shares: cells on pixels, colours, a colour bar, lettering.

It knows arrays and pictures, neither CT nor lesions: results draw with it, and so can whatever else shows where a
model looked.
"""
