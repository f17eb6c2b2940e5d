"""A stack of CT instances as a volume in HU with its patient geometry; masks on its grid; NIfTI in and out."""
