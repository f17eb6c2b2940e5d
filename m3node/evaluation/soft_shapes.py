"""Shapes with a soft edge: what phantoms and inserted lesions are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SoftEllipsoid:
    """An ellipsoid, turned in its slice, with an optional bumpy outline and a soft edge.

    Coordinates are mm along any three orthogonal axes in the order (z, y, x); the turn is about the first.

    Attributes
    ----------
    centre, semi : tuple of float
        Centre and semi-axes, mm.
    turn : float
        Radians in the (y, x) plane.
    edge : float
        Width of the ramp from outside (0) to inside (1), mm; the ramp's middle lies on the surface.
    bump : float
        Relative depth of the outline's three bumps.
    bump_turn : float
        Where they lie, radians.
    """

    centre: Vector
    semi: Vector
    turn: float = 0.0
    edge: float = 1.5
    bump: float = 0.0
    bump_turn: float = 0.0

    @property
    def reach(self) -> Vector:
        """Half extents beyond which the weight is zero."""
        margin = 1.0 + self.bump
        wide = max(self.semi[1:]) * margin + self.edge
        return self.semi[0] * margin + self.edge, wide, wide

    def depth(self, z: Float32Array, y: Float32Array, x: Float32Array) -> Float32Array:
        """Depth in mm below the surface, negative outside; exact for spheres, a good estimate near the surface else."""
        dz, dy, dx = z - self.centre[0], y - self.centre[1], x - self.centre[2]
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        radius = np.sqrt((dz / self.semi[0]) ** 2 + (v / self.semi[1]) ** 2 + (u / self.semi[2]) ** 2)
        if self.bump:
            radius = radius / (1.0 + self.bump * np.cos(3.0 * np.arctan2(v, u) + self.bump_turn))
        return np.asarray((1.0 - radius) * min(self.semi), dtype=np.float32)

    def weight(self, z: Float32Array, y: Float32Array, x: Float32Array) -> Float32Array:
        """Share of the shape at each point, 0…1."""
        return ramp(self.depth(z, y, x), self.edge)


def ramp(depth: Float32Array, edge: float) -> Float32Array:
    """Turn a depth below a surface into a weight of 0…1 over ``edge`` mm, smooth at both ends."""
    t = np.clip(depth / np.float32(edge) + np.float32(0.5), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)
