"""A grid of HU that soft shapes are painted on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from m3node.evaluation.soft_shapes import Float32Array, SoftEllipsoid, Vector, ramp

Block = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """HU on an even grid, with the millimetre coordinates of its voxels.

    Attributes
    ----------
    hu : ndarray of float32, shape (slices, rows, columns)
        Painted in place.
    z, y, x : ndarray of float32
        mm of slices (upwards), rows (backwards) and columns (to the patient's left).
    """

    hu: Float32Array
    z: Float32Array
    y: Float32Array
    x: Float32Array

    @classmethod
    def blank(cls, z: Float32Array, y: Float32Array, x: Float32Array, value: float) -> Canvas:
        """Start with one value everywhere."""
        return cls(hu=np.full((z.size, y.size, x.size), value, dtype=np.float32), z=z, y=y, x=x)

    def block(self, low: Vector, high: Vector) -> Block | None:
        """The voxels between two corners in mm; None when no voxel lies there."""
        parts: list[slice] = []
        for axis, first, last in zip((self.z, self.y, self.x), low, high, strict=True):
            start, stop = int(np.searchsorted(axis, first)), int(np.searchsorted(axis, last, side="right"))
            if stop <= start:
                return None
            parts.append(slice(start, stop))
        return parts[0], parts[1], parts[2]

    def everywhere(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        """The coordinates of all voxels, ready to broadcast."""
        return self.z[:, None, None], self.y[None, :, None], self.x[None, None, :]

    def coordinates(self, block: Block) -> tuple[Float32Array, Float32Array, Float32Array]:
        """The coordinates of a block's voxels, ready to broadcast."""
        return self.z[block[0], None, None], self.y[None, block[1], None], self.x[None, None, block[2]]

    def paint_depth(self, depth: Float32Array, value: float, *, edge: float = 1.5) -> None:
        """Paint what lies below a surface, given the depth on the whole grid."""
        self.hu[...] += ramp(depth, edge) * (np.float32(value) - self.hu)

    def paint(self, shape: SoftEllipsoid, value: float, *, within: Float32Array | None = None) -> None:
        """Paint an ellipsoid; ``within`` (weights on the whole grid) confines it."""
        block = self.block_of(shape)
        if block is None:
            return
        weight = shape.weight(*self.coordinates(block))
        if within is not None:
            weight = weight * within[block]
        self.hu[block] += weight * (np.float32(value) - self.hu[block])

    def paint_all(self, shapes: Iterable[SoftEllipsoid], value: float, *, within: Float32Array | None = None) -> None:
        """Paint several ellipsoids with one value."""
        for shape in shapes:
            self.paint(shape, value, within=within)

    def block_of(self, shape: SoftEllipsoid) -> Block | None:
        """The voxels that a shape can touch."""
        low = tuple(c - r for c, r in zip(shape.centre, shape.reach, strict=True))
        high = tuple(c + r for c, r in zip(shape.centre, shape.reach, strict=True))
        return self.block((low[0], low[1], low[2]), (high[0], high[1], high[2]))
