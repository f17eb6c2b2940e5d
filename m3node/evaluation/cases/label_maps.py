"""Which lesions a NIfTI label map shows."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from m3node.errors import InputRejected
from m3node.imaging.mask import VoxelMask
from m3node.imaging.nifti import read_nifti_mask
from m3node.imaging.volume import CTVolume
from m3node.rejection import Reason

MAX_LESIONS = 1000
"""More different values than that are no labels but an image."""

_TOUCHING = np.ones((3, 3, 3), dtype=np.int8)


def labels_in(path: Path) -> set[int]:
    """Return the whole numbers that a label map holds.

    Raises
    ------
    InputRejected
        It cannot be read, or holds something else.
    """
    try:
        image = nibabel.load(path)
        values = np.unique(np.asanyarray(image.dataobj))  # type: ignore[attr-defined]
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is not a readable NIfTI file: {error}") from error
    if values.size > MAX_LESIONS or not np.array_equal(values, np.rint(values)) or values.min() < 0:
        raise InputRejected(Reason.UNSUPPORTED_PIXELS, f"{path.name} is no label map: whole numbers from 0 are")
    return {int(value) for value in values}


def lesions_of_map(path: Path, volume: CTVolume) -> tuple[VoxelMask, ...]:
    """Take the lesions of a map; none when all of it is 0.

    With one value its parts that do not touch, not even at a corner, are lesions of their own; with several, each
    value is a lesion.
    """
    values = sorted(labels_in(path) - {0})
    if not values:
        return ()
    if len(values) == 1:
        return parts_of(read_nifti_mask(path, volume, values[0]))
    return tuple(read_nifti_mask(path, volume, value) for value in values)


def parts_of(mask: VoxelMask) -> tuple[VoxelMask, ...]:
    """Cut a mask into its parts that do not touch, not even at a corner."""
    labels, count = ndimage.label(mask.data, structure=_TOUCHING)
    parts = []
    for number, block in enumerate(ndimage.find_objects(labels, max_label=count), start=1):
        start = tuple(first + part.start for first, part in zip(mask.start, block, strict=True))
        parts.append(
            VoxelMask(shape=mask.shape, start=(start[0], start[1], start[2]), data=np.asarray(labels[block] == number))
        )
    return tuple(parts)
