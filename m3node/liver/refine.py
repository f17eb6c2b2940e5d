"""Where the liver's border runs on the full grid: decided only in a band around the coarse border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.grow import WINDOW_HU, Grown
from m3node.liver.morphology import any_in_block, depth_inside, without_crumbs
from m3node.liver.trunk import Trunk
from m3node.liver.work_grid import FloatVolume, WorkGrid, box_around

BAND_MM = 4.0
SMOOTHING_MM = 1.3
FAT_HU = -100.0
MARGIN_MM = 8.0
HOLE_MIN_HU = -10.0
CRUMB_SHARE = 0.02
"""Parts smaller than this share of the largest are no lobes."""
SPECK_MM2 = 30.0
"""So small a part of a slice is a few voxels between ribs or in the hilum, which an outline would show as a ring."""

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
        What it encloses on a slice belongs to it unless it is fat or gas; crumbs and specks are dropped.
    """
    grid = trunk.grid
    view = grid.axes.view(volume.hu)
    box = box_around(grown.liver, MARGIN_MM, grid.spacing)
    assert box is not None  # the caller has checked that there is a liver
    coarse, reference, cavity = grown.liver[box], grown.reference[box], trunk.cavity[box].astype(np.float32)
    distance = depth_inside(coarse, grid.spacing, MARGIN_MM) - depth_inside(~coarse, grid.spacing, MARGIN_MM)
    first = [start + sl.start for start, sl in zip(grid.first, box, strict=True)]
    block = _fine(first, coarse.shape, grid.factors, view.shape)
    z, y, x = (
        _Line.of(sl.stop - sl.start, factor, size)
        for sl, factor, size in zip(block, grid.factors, coarse.shape, strict=True)
    )
    lines = (z, y, x)
    fine_spacing = [step / factor for step, factor in zip(grid.spacing, grid.factors, strict=True)]
    sigma = [SMOOTHING_MM / fine_spacing[1], SMOOTHING_MM / fine_spacing[2]]
    mask = np.empty(tuple(sl.stop - sl.start for sl in block), dtype=np.bool_)
    for i in range(mask.shape[0]):
        inside = _resample(distance, lines, i)
        expected = _resample(reference, lines, i)
        hu = view[block[0].start + i, block[1], block[2]]
        smooth = ndi.gaussian_filter(np.clip(hu, -200, 300).astype(np.float32), sigma)
        near = (inside > -BAND_MM) & (np.abs(smooth - expected) < WINDOW_HU) & (_resample(cavity, lines, i) > 0.5)
        # Towards fat the border runs where the partial volume is half liver.
        within = (inside > 0.0) & (smooth > (expected + FAT_HU) / 2.0) & (smooth < expected + WINDOW_HU)
        mask[i] = _fill((inside > BAND_MM) | near | within, smooth)
    # Labels of the full grid would take four times the mask; blocks of the working grid tell parts apart as well.
    keep = without_crumbs(any_in_block(mask, grid.factors), CRUMB_SHARE)
    rows, columns = (np.arange(mask.shape[axis]) // grid.factors[axis] for axis in (1, 2))
    speck = SPECK_MM2 / (fine_spacing[1] * fine_spacing[2])
    for i in range(mask.shape[0]):
        mask[i] = _without_specks(mask[i] & keep[i // grid.factors[0]][rows[:, None], columns], speck)
    return _on_volume(volume, grid, block, mask)


def _fine(
    first: list[int], size: tuple[int, ...], factors: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    """Fine voxels of a block of the working grid."""
    slices = [slice(f * k, min(n, (f + s) * k)) for f, s, k, n in zip(first, size, factors, shape, strict=True)]
    return slices[0], slices[1], slices[2]


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Linear interpolation along one axis: each fine voxel lies between two coarse ones.

    Attributes
    ----------
    low, high : ndarray of int
        The coarse voxels before and behind.
    share : ndarray of float32
        Weight of the one behind.
    """

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    share: Floats

    @classmethod
    def of(cls, count: int, factor: int, size: int) -> _Line:
        at = np.clip((np.arange(count) - (factor - 1) / 2.0) / factor, 0, size - 1)
        low = at.astype(np.intp)
        return cls(low=low, high=np.minimum(low + 1, size - 1), share=(at - low).astype(np.float32))


def _resample(values: FloatVolume, lines: tuple[_Line, _Line, _Line], i: int) -> Floats:
    """One fine slice of a coarse field."""
    z, y, x = lines
    plane = values[z.low[i]] * (1 - z.share[i]) + values[z.high[i]] * z.share[i]
    rows = plane[y.low] * (1 - y.share)[:, None] + plane[y.high] * y.share[:, None]
    return np.asarray(rows[:, x.low] * (1 - x.share) + rows[:, x.high] * x.share, dtype=np.float32)


def _fill(mask: BoolArray, smooth: Floats) -> BoolArray:
    """Fill holes of soft tissue: lesions and vessels belong to the liver, the fat of its hilum does not."""
    holes, count = ndi.label(ndi.binary_fill_holes(mask) & ~mask)
    if count == 0:
        return mask
    means = ndi.mean(smooth, holes, np.arange(1, count + 1))
    soft = np.concatenate([[False], np.asarray(means) > HOLE_MIN_HU])
    return np.asarray(mask | soft[holes])


def _without_specks(mask: BoolArray, size: float) -> BoolArray:
    """Drop parts of a slice that are smaller than so many voxels, unless all are."""
    labels, count = ndi.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= min(size, sizes.max()))[labels] & mask)


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
