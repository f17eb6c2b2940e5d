"""Where the liver's border runs on the full grid: decided only in a band around the coarse border."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.morphology import depth_inside, largest_component
from m3node.liver.work_grid import FloatVolume, WorkGrid

BAND_MM = 4.0
SMOOTHING_MM = 1.3
FAT_HU = -100.0
MARGIN_MM = 8.0
HOLE_MIN_HU = -10.0

Floats = npt.NDArray[np.float32]


def refine(volume: CTVolume, grid: WorkGrid, coarse: BoolArray, reference: FloatVolume, window_hu: float) -> VoxelMask:
    """Carry a coarse liver to the full grid, slice by slice inside its bounding block.

    Parameters
    ----------
    coarse : ndarray of bool
        The liver on the working grid.
    reference : ndarray of float32
        The liver's HU there.
    window_hu : float
        How far liver tissue may lie from its reference.

    Returns
    -------
    VoxelMask
        One connected part; what it encloses on a slice belongs to it unless it is fat or gas.
    """
    view = grid.axes.view(volume.hu)
    block = _block(coarse, grid, view.shape)
    distance = depth_inside(coarse, grid.spacing) - depth_inside(~coarse, grid.spacing)
    weights = [
        _interpolation(sl.start, sl.stop, factor, size)
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
        tissue = np.abs(smooth - expected) < window_hu
        # Towards fat the border runs where the partial volume is half liver.
        half = (expected + FAT_HU) / 2.0
        mask[i] = (
            (inside > BAND_MM)
            | ((inside > -BAND_MM) & tissue)
            | ((inside > 0.0) & (smooth > half) & (smooth < expected + window_hu))
        )
        mask[i] = _fill(mask[i], smooth)
    mask = largest_component(mask)
    return _on_volume(volume, grid, block, mask)


def _block(coarse: BoolArray, grid: WorkGrid, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    slices: list[slice] = []
    for axis in range(3):
        hits = np.flatnonzero(coarse.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(MARGIN_MM / grid.spacing[axis]))
        first = max(0, int(hits[0]) - margin) * grid.factors[axis]
        last = min(shape[axis], (int(hits[-1]) + 1 + margin) * grid.factors[axis])
        slices.append(slice(first, last))
    return slices[0], slices[1], slices[2]


def _interpolation(first: int, last: int, factor: int, size: int) -> Floats:
    """Linear interpolation from the working grid to fine voxels first…last, as a matrix."""
    at = np.clip((np.arange(first, last) - (factor - 1) / 2.0) / factor, 0, size - 1)
    low = np.minimum(at.astype(np.intp), max(0, size - 2))
    matrix = np.zeros((last - first, size), dtype=np.float32)
    rows = np.arange(last - first)
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
