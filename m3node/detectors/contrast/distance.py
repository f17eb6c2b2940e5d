"""Distances in millimetres on a grid whose spacing differs by axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from m3node.detectors.contrast.grid import FloatVolume
from m3node.imaging.mask import BoolArray


def depth_inside(mask: BoolArray, spacing: Sequence[float]) -> FloatVolume:
    """Distance of every true voxel to the nearest false one; the grid's own end is no border."""
    if mask.all():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing), dtype=np.float32)


def distance_to(mask: BoolArray, spacing: Sequence[float]) -> FloatVolume:
    """Distance of every voxel to the nearest true one, 0 on it; infinite when there is none."""
    return depth_inside(~mask, spacing)


def eroded(mask: BoolArray, radius_mm: float, spacing: Sequence[float]) -> BoolArray:
    """Keep what lies deeper than ``radius_mm``."""
    return np.asarray(depth_inside(mask, spacing) > radius_mm)
