"""Where the liver's border runs on the full grid: decided only in a band around the coarse border."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.grow import WINDOW_HU, Grown
from m3node.liver.morphology import depth_inside, without_crumbs
from m3node.liver.trunk import Trunk
from m3node.liver.work_grid import FloatVolume, WorkGrid, box_around

BAND_MM = 4.0
SMOOTHING_MM = 1.3
FAT_HU = -100.0
MARGIN_MM = 8.0
HOLE_MIN_HU = -10.0
CRUMB_SHARE = 0.02
"""Parts smaller than this share of the largest are no lobes."""

Floats = npt.NDArray[np.float32]


def refine(volume: CTVolume, trunk: Trunk, grown: Grown) -> VoxelMask:
    """Carry a coarse liver to the full grid, slice by slice inside its bounding block.

    Parameters
    ----------
    volume : CTVolume
        The full grid.
    trunk : Trunk
        Working grid and cavity; the liver does not grow out of the latter.
    grown : Grown
        The liver on the working grid, not empty, and its expected HU.

    Returns
    -------
    VoxelMask
        What it encloses on a slice belongs to it unless it is fat or gas; crumbs are dropped.
    """
    grid = trunk.grid
    view = grid.axes.view(volume.hu)
    box = box_around(grown.liver, MARGIN_MM, grid.spacing)
    assert box is not None  # the caller has checked that there is a liver
    coarse, reference, cavity = grown.liver[box], grown.reference[box], trunk.cavity[box].astype(np.float32)
    distance = depth_inside(coarse, grid.spacing) - depth_inside(~coarse, grid.spacing)
    first = [start + sl.start for start, sl in zip(grid.first, box, strict=True)]
    block = _fine(first, coarse.shape, grid.factors, view.shape)
    weights = [
        _interpolation(sl.stop - sl.start, factor, size)
        for sl, factor, size in zip(block, grid.factors, coarse.shape, strict=True)
    ]
    fine_spacing = [step / factor for step, factor in zip(grid.spacing, grid.factors, strict=True)]
    sigma = [SMOOTHING_MM / fine_spacing[1], SMOOTHING_MM / fine_spacing[2]]
    mask = np.empty(tuple(sl.stop - sl.start for sl in block), dtype=np.bool_)
    for i in range(mask.shape[0]):
        inside = _resample(distance, weights, i)
        expected = _resample(reference, weights, i)
        hu = view[block[0].start + i, block[1], block[2]]
        smooth = ndi.gaussian_filter(np.clip(hu, -200, 300).astype(np.float32), sigma)
        near = (inside > -BAND_MM) & (np.abs(smooth - expected) < WINDOW_HU) & (_resample(cavity, weights, i) > 0.5)
        # Towards fat the border runs where the partial volume is half liver.
        within = (inside > 0.0) & (smooth > (expected + FAT_HU) / 2.0) & (smooth < expected + WINDOW_HU)
        mask[i] = _fill((inside > BAND_MM) | near | within, smooth)
    return _on_volume(volume, grid, block, without_crumbs(mask, CRUMB_SHARE))


def _fine(
    first: list[int], size: tuple[int, ...], factors: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    """Fine voxels of a block of the working grid."""
    slices = [slice(f * k, min(n, (f + s) * k)) for f, s, k, n in zip(first, size, factors, shape, strict=True)]
    return slices[0], slices[1], slices[2]


def _interpolation(count: int, factor: int, size: int) -> Floats:
    """Linear interpolation from ``size`` coarse voxels to the ``count`` fine ones in them, as a matrix."""
    at = np.clip((np.arange(count) - (factor - 1) / 2.0) / factor, 0, size - 1)
    low = np.minimum(at.astype(np.intp), max(0, size - 2))
    matrix = np.zeros((count, size), dtype=np.float32)
    rows = np.arange(count)
    matrix[rows, low] = 1.0 - (at - low)
    if size > 1:
        matrix[rows, low + 1] += (at - low).astype(np.float32)
    return matrix


def _resample(values: FloatVolume, weights: list[Floats], i: int) -> Floats:
    """One fine slice of a coarse field."""
    used = np.flatnonzero(weights[0][i])
    plane = np.tensordot(weights[0][i, used], values[used], axes=1)
    return np.asarray(weights[1] @ plane @ weights[2].T, dtype=np.float32)


def _fill(mask: BoolArray, smooth: Floats) -> BoolArray:
    """Fill holes of soft tissue: lesions and vessels belong to the liver, the fat of its hilum does not."""
    holes, count = ndi.label(ndi.binary_fill_holes(mask) & ~mask)
    if count == 0:
        return mask
    means = ndi.mean(smooth, holes, np.arange(1, count + 1))
    soft = np.concatenate([[False], np.asarray(means) > HOLE_MIN_HU])
    return np.asarray(mask | soft[holes])


def _on_volume(volume: CTVolume, grid: WorkGrid, block: tuple[slice, slice, slice], mask: BoolArray) -> VoxelMask:
    start = [0, 0, 0]
    sizes = volume.hu.shape
    for axis, against, sl in zip(grid.axes.order, grid.axes.reversed, block, strict=True):
        start[axis] = sizes[axis] - sl.stop if against else sl.start
    return VoxelMask(
        shape=(sizes[0], sizes[1], sizes[2]),
        start=(start[0], start[1], start[2]),
        data=grid.axes.view_back(mask),
    ).cropped()
