"""Distances in millimetres on a grid whose spacing differs by axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from m3node.detectors.contrast.grid import FloatVolume
from m3node.imaging.mask import BoolArray

_VOXELS_AT_A_TIME = 100_000


def depth_inside(mask: BoolArray, spacing: Sequence[float]) -> FloatVolume:
    """Distance of every true voxel to the nearest false one; the grid's own end is no border."""
    if mask.all():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    # SciPy would take the distances from these places too, of all voxels at once: 48 bytes for each of them.
    nearest = ndimage.distance_transform_edt(mask, sampling=spacing, return_distances=False, return_indices=True)
    out = np.empty(mask.shape, dtype=np.float32)
    _, rows, columns = mask.shape
    at_a_time = max(1, _VOXELS_AT_A_TIME // (rows * columns))
    for first in range(0, len(mask), at_a_time):
        block = slice(first, first + at_a_time)
        places = np.ogrid[first : min(first + at_a_time, len(mask)), :rows, :columns]
        squares = np.zeros(out[block].shape)
        for axis, step in enumerate(spacing):
            away = (nearest[axis, block] - places[axis]) * float(step)
            away *= away
            squares += away
        out[block] = np.sqrt(squares, out=squares)
    return out


def distance_to(mask: BoolArray, spacing: Sequence[float]) -> FloatVolume:
    """Distance of every voxel to the nearest true one, 0 on it; infinite when there is none."""
    return depth_inside(~mask, spacing)


def eroded(mask: BoolArray, radius_mm: float, spacing: Sequence[float]) -> BoolArray:
    """Keep what lies deeper than ``radius_mm``."""
    return np.asarray(depth_inside(mask, spacing) > radius_mm)
