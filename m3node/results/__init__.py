"""What is answered: SR, SEG, GSPS, findings.json and the overlay picture, with deterministic UIDs.

``store`` keeps findings before anything is built of them, ``succession`` ties generations, ``build`` makes
the DICOM objects (``report``, ``volumes``, ``segmentation``, ``presentation``) and ``overlay`` draws the picture.
"""
