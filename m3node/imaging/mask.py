"""A boolean mask that stores only the part of the grid it touches: a 500-slice volume must not cost a mask each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Extent = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class VoxelMask:
    """True voxels of a volume's grid, held as a sub-block.

    Attributes
    ----------
    shape : tuple of int
        Slices, rows, columns of the whole grid.
    start : tuple of int
        Where ``data`` begins in the grid, (k, r, c).
    data : ndarray of bool
        The block; everything outside it is False.
    """

    shape: tuple[int, int, int]
    start: tuple[int, int, int]
    data: BoolArray

    @classmethod
    def from_full(cls, mask: npt.NDArray[np.bool_]) -> VoxelMask:
        """Keep the bounding block of a whole-grid mask."""
        k, r, c = mask.shape
        return cls(shape=(k, r, c), start=(0, 0, 0), data=mask).cropped()

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> VoxelMask:
        """Return a mask without a true voxel."""
        return cls(shape=shape, start=(0, 0, 0), data=np.zeros((0, 0, 0), dtype=np.bool_))

    @property
    def count(self) -> int:
        """Number of true voxels."""
        return int(np.count_nonzero(self.data))

    @property
    def extent(self) -> Extent | None:
        """Half-open bounds of the true voxels on the whole grid, (k, r, c); None when there is none."""
        bounds: list[tuple[int, int]] = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            hits = np.flatnonzero(self.data.any(axis=others))
            if hits.size == 0:
                return None
            first = self.start[axis]
            bounds.append((first + int(hits[0]), first + int(hits[-1]) + 1))
        return bounds[0], bounds[1], bounds[2]

    def cropped(self) -> VoxelMask:
        """Return the same mask with the smallest block, copied."""
        extent = self.extent
        if extent is None:
            return VoxelMask.empty(self.shape)
        return VoxelMask(
            shape=self.shape,
            start=(extent[0][0], extent[1][0], extent[2][0]),
            data=self.within(extent),
        )

    def within(self, extent: Extent) -> BoolArray:
        """Copy out the part inside half-open bounds of the whole grid."""
        out = np.zeros(tuple(b - a for a, b in extent), dtype=np.bool_)
        source: list[slice] = []
        target: list[slice] = []
        for axis, (first, last) in enumerate(extent):
            low = max(first, self.start[axis])
            high = min(last, self.start[axis] + self.data.shape[axis])
            if high <= low:
                return out
            source.append(slice(low - self.start[axis], high - self.start[axis]))
            target.append(slice(low - first, high - first))
        out[tuple(target)] = self.data[tuple(source)]
        return out

    def on_slice(self, k: int) -> BoolArray:
        """The mask on slice ``k``, shape (rows, columns)."""
        plane: BoolArray = self.within(((k, k + 1), (0, self.shape[1]), (0, self.shape[2])))[0]
        return plane

    def full(self) -> BoolArray:
        """The mask on the whole grid; costs a byte a voxel."""
        return self.within(((0, self.shape[0]), (0, self.shape[1]), (0, self.shape[2])))
