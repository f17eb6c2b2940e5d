"""A lesion that is known to be there, because it was put there."""

from __future__ import annotations

from dataclasses import dataclass

from m3node.evaluation.soft_shapes import Vector
from m3node.imaging.mask import VoxelMask


@dataclass(frozen=True, slots=True, eq=False)
class TrueLesion:
    """A lesion that was put there.

    Attributes
    ----------
    mask : VoxelMask
        Voxels at least half lesion.
    diameter_mm : float
        Longest axis of the ellipsoid it was made from.
    centre_mm : tuple of float
        Patient coordinates, LPS.
    delta_hu : float
        How much darker than the liver, positive.
    """

    mask: VoxelMask
    diameter_mm: float
    centre_mm: Vector
    delta_hu: float
