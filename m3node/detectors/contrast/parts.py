"""Takes apart what lies below a level of HU, with balls of several sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from m3node.detectors.contrast.distance import depth_inside, distance_to
from m3node.detectors.contrast.field import ContrastField
from m3node.detectors.contrast.grid import ContrastGrid, FloatVolume
from m3node.imaging.mask import BoolArray

Part = tuple[slice, slice, slice]

_BALLS_MM = (1.4, 2.5, 4.0, 6.5)
"""Radii of the balls that open a level."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedPart:
    """A part of one level, opened with a ball.

    Attributes
    ----------
    inside, core : ndarray of bool
        The part, and what lies deep in it.
    outer : ndarray of float32
        mm outside the opened part; not positive inside.
    radius, largest : float
        Radius of a ball of the same volume, and of the largest ball inside.
    rest_width : float
        Half width in mm of what it is connected to at this level nearby; 0 when that is next to nothing.
    """

    part: Part
    inside: BoolArray
    core: BoolArray
    outer: FloatVolume
    radius: float
    largest: float
    rest_width: float


def parts_of_level(  # noqa: PLR0917 - a step of find_foci, split off to be read
    grid: ContrastGrid,
    field: ContrastField,
    depth: FloatVolume,
    skin: BoolArray,
    level: float,
    radii_mm: tuple[float, float],
) -> Iterator[OpenedPart]:
    """Take apart what lies below a level: each part of a fitting size, with some of its surroundings."""
    above = (depth >= level) & field.core & grid.envelope
    inner = depth_inside(above, grid.spacing)
    wholes, _ = ndimage.label(above)
    for ball in _BALLS_MM:
        labels, count = ndimage.label(inner > ball)
        if count == 0:
            return
        for label, (k, r, c) in enumerate(ndimage.find_objects(labels), start=1):
            part = _around((k, r, c), ball + 9.0, grid, depth.shape)
            seed = labels[part] == label
            outer = distance_to(seed, grid.spacing) - np.float32(ball)
            inside = np.asarray((outer <= 0) & above[part])
            radius = _radius(inside, grid)
            if not radii_mm[0] <= radius <= radii_mm[1]:
                continue
            local = inner[part]
            largest = float(local[seed].max())
            whole = wholes[part] == wholes[part][seed][0]
            rest = whole & (outer > 1.5) & (outer <= 8.0) & ~skin[part]
            yield OpenedPart(
                part=part,
                inside=inside,
                core=inside & (local >= 0.4 * largest),
                outer=outer,
                radius=radius,
                largest=largest,
                rest_width=_half_width(local, rest, inside),
            )


def _half_width(inner: FloatVolume, rest: BoolArray, inside: BoolArray) -> float:
    """Half width of a part's continuation: in a tube, voxels lie a third of it below the surface on average."""
    if np.count_nonzero(rest) < 0.3 * np.count_nonzero(inside):
        return 0.0
    return 3.0 * float(inner[rest].mean())


def _radius(inside: BoolArray, grid: ContrastGrid) -> float:
    """Radius in mm of a ball of the same volume."""
    return float((3.0 * int(np.count_nonzero(inside)) * grid.block_mm3 / (4.0 * math.pi)) ** (1 / 3))


def _around(box: Part, margin_mm: float, grid: ContrastGrid, shape: tuple[int, ...]) -> Part:
    a, b, c = (
        slice(max(0, s.start - math.ceil(margin_mm / step)), min(n, s.stop + math.ceil(margin_mm / step)))
        for s, step, n in zip(box, grid.spacing, shape, strict=True)
    )
    return a, b, c
