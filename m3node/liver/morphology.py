"""Erosion, dilation and their kin with radii in millimetres, on grids whose spacing differs by axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray

Spacing = tuple[float, ...]

SLAB = 32
"""Planes of the first axis that a distance transform holds at a time, at least."""


def depth_inside(mask: BoolArray, spacing: Spacing, limit_mm: float) -> npt.NDArray[np.float32]:
    """Distance in mm of every true voxel to the nearest false one, up to a limit; zero at false ones.

    The grid's border does not count as outside. Up to the limit distances are exact; deeper voxels get a distance
    that is at least the limit. Knowing the limit, the transform (20 bytes a voxel) is made slab by slab.
    """
    margin = int(np.ceil(limit_mm / spacing[0])) + 1
    step = max(SLAB, 2 * margin)
    depth = np.empty(mask.shape, dtype=np.float32)
    for first in range(0, len(mask), step):
        low, last = max(0, first - margin), min(len(mask), first + step)
        slab = mask[low : last + margin]
        if slab.all():
            depth[first:last] = limit_mm
        elif not slab.any():
            depth[first:last] = 0.0
        else:
            depth[first:last] = ndi.distance_transform_edt(slab, sampling=spacing)[first - low : last - low]
    return depth


def erode(mask: BoolArray, radius_mm: float, spacing: Spacing) -> BoolArray:
    """Keep what lies deeper than ``radius_mm``; the grid's border does not erode."""
    return np.asarray(depth_inside(mask, spacing, radius_mm * 1.001 + 0.001) > radius_mm)


def dilate(mask: BoolArray, radius_mm: float, spacing: Spacing) -> BoolArray:
    """Add everything within ``radius_mm``."""
    if not mask.any():
        return mask.copy()
    return np.asarray(~erode(~mask, radius_mm, spacing))


def open_(mask: BoolArray, radius_mm: float, spacing: Spacing) -> BoolArray:
    """Drop what a ball of ``radius_mm`` does not fit into."""
    return dilate(erode(mask, radius_mm, spacing), radius_mm, spacing) & mask


def largest_component(mask: BoolArray) -> BoolArray:
    """Keep the largest face-connected part."""
    labels, count = ndi.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def any_in_block(mask: BoolArray, factors: Sequence[int]) -> BoolArray:
    """Pool: a coarse voxel is true where any of its fine ones is."""
    pooled = mask
    for axis, factor in enumerate(factors):
        if factor > 1:
            pooled = np.logical_or.reduceat(pooled, np.arange(0, pooled.shape[axis], factor), axis=axis)
    return pooled


def without_crumbs(mask: BoolArray, share: float) -> BoolArray:
    """Drop face-connected parts that are smaller than a share of the largest."""
    labels, count = ndi.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= share * sizes.max())[labels] & mask)


def fill_axial_holes(mask: BoolArray) -> BoolArray:
    """Fill what is enclosed on a slice of the first axis."""
    return np.stack([ndi.binary_fill_holes(plane) for plane in mask])


def local_moments(
    values: npt.NDArray[np.float32], size: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and variance in a box around every voxel."""
    mean = ndi.uniform_filter(values, size)
    variance = ndi.uniform_filter(values * values, size) - mean * mean
    return mean, np.maximum(variance, 0.0)


def smooth_keeping_edges(
    values: npt.NDArray[np.float32], size: tuple[int, int, int], noise_sd: float
) -> npt.NDArray[np.float32]:
    """Self-guided filter: averages where the box varies like noise, keeps edges.

    K. He, J. Sun and X. Tang, "Guided image filtering", IEEE PAMI 35 (2013), 1397-1409.
    """
    mean, variance = local_moments(values, size)
    slope = variance / (variance + np.float32(noise_sd * noise_sd))
    offset = mean * (1.0 - slope)
    return np.asarray(ndi.uniform_filter(slope, size) * values + ndi.uniform_filter(offset, size), dtype=np.float32)
