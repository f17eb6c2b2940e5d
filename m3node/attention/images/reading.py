"""One file in, one image as it is shown to the model out."""

from __future__ import annotations

from pathlib import Path

from m3node.attention.images.dicom import read_dicom
from m3node.attention.images.image import InputImage
from m3node.attention.images.names import shown
from m3node.attention.images.picture import MAGIC, read_picture
from m3node.errors import ImageError


def read_image(path: Path) -> InputImage:
    """Read a PNG, JPEG or DICOM image; by what it begins with, not by its name.

    Returns
    -------
    InputImage
        Without ``body``.

    Raises
    ------
    ImageError
        What is wrong with the file, and what to do; never anything of the patient's but the file's own name.
    """
    if not path.is_file():
        raise ImageError(f"{shown(path)} is no file that can be read; check the path")
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ImageError(f"{shown(path)} cannot be read: {error.strerror}; check its permissions") from error
    if not head:
        raise ImageError(f"{shown(path)} is empty; copy it again")
    if head.startswith(MAGIC):
        return read_picture(path)
    return read_dicom(path)
