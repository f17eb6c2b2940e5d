"""Erosion, dilation and their kin with radii in millimetres, on grids whose spacing differs by axis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray

Spacing = tuple[float, ...]


def depth_inside(mask: BoolArray, spacing: Spacing) -> npt.NDArray[np.float32]:
    """Distance in mm of every true voxel to the nearest false one; the grid's border does not count as outside."""
    if mask.all():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    return np.asarray(ndi.distance_transform_edt(mask, sampling=spacing), dtype=np.float32)


def erode(mask: BoolArray, radius_mm: float, spacing: Spacing) -> BoolArray:
    """Keep what lies deeper than ``radius_mm``; the grid's border does not erode."""
    return np.asarray(depth_inside(mask, spacing) > radius_mm)


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
