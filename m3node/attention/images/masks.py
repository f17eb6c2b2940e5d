"""Reads the mask of what a question is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from m3node.attention.images.image import InputImage
from m3node.attention.images.names import shown
from m3node.attention.images.picture import opened
from m3node.errors import ImageError


def read_mask(path: Path, image: InputImage) -> npt.NDArray[np.bool_]:
    """Read a PNG as large as the image; its pixels that are not 0 (of a palette: its first colour) are marked.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        All False where nothing is marked: then there is nothing to hit.

    Raises
    ------
    ImageError
        It cannot be read, is no PNG, or is not as large as the image.
    """
    with opened(path) as picture:
        if picture.format != "PNG":
            raise ImageError(f"the mask {shown(path)} is no PNG; lossy pictures blur what is marked, save it as PNG")
        values = np.asarray(picture)
        bands = picture.getbands()
    if values.ndim == 3:
        alpha = bands[-1] in {"A", "a"}
        marked = (values[..., : -1 if alpha else None] != 0).any(axis=-1)
        if alpha:
            marked &= values[..., -1] != 0
    else:
        marked = values != 0
    if marked.shape != image.shape:
        raise ImageError(
            f"the mask {shown(path)} is {marked.shape[0]}×{marked.shape[1]} pixels, its image {shown(image.path)} "
            f"{image.shape[0]}×{image.shape[1]}; they must be the same"
        )
    return np.asarray(marked)
