"""The envelope's part of the volume on a coarser grid: small, and less noisy by averaging."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from m3node.imaging.mask import BoolArray, Extent, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion

FloatVolume = npt.NDArray[np.float32]

_IN_PLANE_MM = 1.7
_ALONG_MM = 2.1
_MARGIN_MM = 6.0

MOST_PLACES = 12_000_000
"""Comparing takes up to 36 bytes a place. A liver comes near this only where a block has just no room for two pixels,
and what was taken for a liver where it is longer than any."""


@dataclass(frozen=True, slots=True, eq=False)
class ContrastGrid:
    """Block means of HU around the liver.

    Attributes
    ----------
    hu : ndarray of float32, shape (slices, rows, columns)
        Block means.
    envelope, parenchyma : ndarray of bool
        Blocks of which at least half is inside.
    start : tuple of int
        The volume's voxel that the first block begins at, (k, r, c).
    factors : tuple of int
        Voxels of the volume in a block along each axis.
    spacing : tuple of float
        mm between blocks.
    shape : tuple of int
        The volume's.
    """

    hu: FloatVolume
    envelope: BoolArray
    parenchyma: BoolArray
    start: tuple[int, int, int]
    factors: tuple[int, int, int]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    @property
    def block_mm3(self) -> float:
        """Volume of a block."""
        return self.spacing[0] * self.spacing[1] * self.spacing[2]

    def radius(self, mm: float) -> list[float]:
        """A length in blocks along each axis, for filters."""
        return [mm / step for step in self.spacing]

    def refined(self, part: tuple[slice, slice, slice], depth: FloatVolume, region: BoolArray) -> VoxelMask:
        """Bring a region back to the volume's own voxels.

        Parameters
        ----------
        part : tuple of slice
            The part of the grid that ``depth`` and ``region`` cover.
        depth : ndarray of float32
            Positive inside; its interpolated zero is the outline.
        region : ndarray of bool
            Where the outline may lie.
        """
        first = [p.start * f + s for p, f, s in zip(part, self.factors, self.start, strict=True)]
        last = [min(p.stop * f + s, n) for p, f, s, n in zip(part, self.factors, self.start, self.shape, strict=True)]
        # Voxel centres in block coordinates, both measured from edges.
        axes = [
            (np.arange(b - a, dtype=np.float32) + 0.5) / f - 0.5
            for a, b, f in zip(first, last, self.factors, strict=True)
        ]
        data = np.zeros(tuple(len(axis) for axis in axes), dtype=np.bool_)
        allowed = region.astype(np.float32)
        rows, columns = np.meshgrid(axes[1], axes[2], indexing="ij")
        for index, k in enumerate(axes[0]):
            points = np.stack([np.full_like(rows, k), rows, columns])
            at_depth = ndimage.map_coordinates(depth, points, order=1, mode="nearest")
            at_region = ndimage.map_coordinates(allowed, points, order=1, mode="nearest")
            data[index] = (at_depth > 0) & (at_region >= 0.5)
        return VoxelMask(shape=self.shape, start=(first[0], first[1], first[2]), data=data).cropped()


def make_grid(volume: CTVolume, region: LiverRegion) -> ContrastGrid | None:
    """Average the envelope's surroundings in blocks; None when the envelope is empty."""
    extent = region.envelope.extent
    if extent is None:
        return None
    spacing, shape = volume.geometry.spacing, volume.geometry.shape
    factors = _factors(extent, spacing)
    bounds = tuple(
        _whole_blocks(first, last, round(_MARGIN_MM / step), factor, size)
        for (first, last), step, factor, size in zip(extent, spacing, factors, shape, strict=True)
    )
    whole: Extent = (bounds[0], bounds[1], bounds[2])
    return ContrastGrid(
        hu=_block_means(volume, whole, factors),
        envelope=_blocks_of(region.envelope, whole, factors),
        parenchyma=_blocks_of(region.parenchyma, whole, factors),
        start=(whole[0][0], whole[1][0], whole[2][0]),
        factors=factors,
        spacing=(spacing[0] * factors[0], spacing[1] * factors[1], spacing[2] * factors[2]),
        shape=shape,
    )


def _factors(extent: Extent, spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Choose the blocks: as many voxels as the wanted size holds, and more where there would be too many blocks."""
    wanted = (_ALONG_MM, _IN_PLANE_MM, _IN_PLANE_MM)
    along, rows, columns = (max(1, int(target / step)) for target, step in zip(wanted, spacing, strict=True))
    voxels = prod(
        last - first + 2 * round(_MARGIN_MM / step) for (first, last), step in zip(extent, spacing, strict=True)
    )
    while voxels > MOST_PLACES * along * rows * columns:
        if rows * spacing[1] > along * spacing[0]:
            along += 1
        else:
            rows, columns = rows + 1, columns + 1
    return along, rows, columns


def _whole_blocks(first: int, last: int, margin: int, factor: int, size: int) -> tuple[int, int]:
    low = max(0, first - margin)
    blocks = -(-(min(size, last + margin) - low) // factor)
    return low, low + blocks * factor


def _block_means(volume: CTVolume, extent: Extent, factors: tuple[int, ...]) -> FloatVolume:
    """Average slab by slab; past the volume's end its last voxels are repeated."""
    (k0, k1), rows, columns = extent
    depth, height, width = volume.geometry.shape
    out = np.empty(tuple((b - a) // f for (a, b), f in zip(extent, factors, strict=True)), dtype=np.float32)
    for index, k in enumerate(range(k0, k1, factors[0])):
        slab = volume.hu[k : min(k + factors[0], depth), rows[0] : rows[1], columns[0] : columns[1]]
        plane = slab.mean(axis=0, dtype=np.float32)
        missing = [(0, max(0, rows[1] - height)), (0, max(0, columns[1] - width))]
        out[index] = _means(np.pad(plane, missing, mode="edge"), factors[1:])
    return out


def _blocks_of(mask: VoxelMask, extent: Extent, factors: tuple[int, ...]) -> BoolArray:
    (k0, k1), rows, columns = extent
    out = np.empty(tuple((b - a) // f for (a, b), f in zip(extent, factors, strict=True)), dtype=np.bool_)
    for index, k in enumerate(range(k0, k1, factors[0])):
        inside = mask.within(((k, min(k + factors[0], mask.shape[0])), rows, columns))
        out[index] = _means(inside.mean(axis=0, dtype=np.float32), factors[1:]) >= 0.5
    return out


def _means(plane: FloatVolume, factors: tuple[int, ...]) -> FloatVolume:
    rows, columns = factors
    blocks = plane.reshape(plane.shape[0] // rows, rows, plane.shape[1] // columns, columns)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)
