"""Compact places that stand out from the liver around them.

Thresholds are lowered step by step; what each leaves is opened with balls of several sizes, which parts a lesion from
the vessel, fissure or muscle beside it, and each part counts when it is compact, surrounded by liver and stands out
from it. Of parts that share voxels the best one is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from m3node.detectors.contrast.distance import depth_inside, distance_to
from m3node.detectors.contrast.field import ContrastField
from m3node.detectors.contrast.grid import ContrastGrid, FloatVolume
from m3node.imaging.mask import BoolArray, VoxelMask

Part = tuple[slice, slice, slice]

_LEVELS_HU = (70.0, 50.0, 38.0, 29.0, 22.0, 17.0, 13.0, 10.0)
"""Levels in HU below the liver around."""

_BALLS_MM = (1.4, 2.5, 4.0, 6.5)
"""Radii of the balls that open a level."""

_SKIN_MM = 12.0
"""Nearer than this to the envelope's outside there may be fat, muscle or lung beside a lesion; deeper there may not."""


_OUTLINE_MM = 3.0
"""A focus's outline lies no farther outside the part: that much is lost to mixed voxels and to opening."""

_LIKE_LIVER_HU = 20.0
"""So near to the liver's HU, tissue is taken for liver although the liver's mask may have left it out."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes a part a focus.

    Small parts need more: noise, vessels' ends and the rests of fissures are small, and a small lesion is rarely just
    at the border. Bounds that depend on size are given for some radii and interpolated between them.

    Attributes
    ----------
    min_radius_mm, max_radius_mm : float
        Of a ball of the same volume.
    min_compactness : float
        See `_Blob.compactness`.
    max_length : float
        Longest half extent over the radius: 1 for a ball, much for tubes.
    surround_radii_mm, min_surround : tuple of float
        Share of the shell around it that is liver; the rest is what a lesion at the capsule has beside it.
    foreign_radii_mm, max_foreign : tuple of float
        Share of the shell that is not liver although it lies deep in the envelope: a fissure, the hilum, a vessel
        that is not enhanced and goes on.
    water_hu, min_water_surround : float
        Nearly water at the border is the gallbladder, deep in the liver it is a cyst.
    min_contrast_hu : float
        Difference to the liver in the shell.
    contrast_radii_mm, min_contrast_sd : tuple of float
        That difference in units of the liver's spread there.
    min_widening : float
        How much thicker it is than what it is part of: a piece of a vessel or fissure is not.
    min_worth : float
        See `_Blob.worth`.
    """

    min_radius_mm: float = 2.5
    max_radius_mm: float = 60.0
    min_compactness: float = 0.35
    max_length: float = 1.8
    surround_radii_mm: tuple[float, float] = (3.0, 5.5)
    min_surround: tuple[float, float] = (0.9, 0.45)
    foreign_radii_mm: tuple[float, float, float] = (4.0, 6.5, 12.0)
    max_foreign: tuple[float, float, float] = (0.06, 0.25, 0.35)
    water_hu: float = 25.0
    min_water_surround: float = 0.8
    min_contrast_hu: float = 16.0
    contrast_radii_mm: tuple[float, float] = (3.0, 6.0)
    min_contrast_sd: tuple[float, float] = (4.0, 3.0)
    min_widening: float = 1.5
    min_worth: float = 5.0


HYPODENSE = Rule()
HYPERDENSE = replace(
    HYPODENSE, min_compactness=0.55, max_length=1.4, min_surround=(0.95, 0.85), max_foreign=(0.03, 0.1, 0.1)
)
"""Vessels in contrast are bright: only what is nearly a ball and wholly inside liver counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Focus:
    """A place that stands out.

    Attributes
    ----------
    mask : VoxelMask
        The volume's own voxels, bounded where half the contrast is lost.
    contrast_hu : float
        Difference of its core to the liver around, positive.
    score : float
        That difference over the liver's spread there (contrast-to-noise).
    """

    mask: VoxelMask
    contrast_hu: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Blob:
    """A part of one level, with what was measured on it (see `Rule`)."""

    part: Part
    inside: BoolArray
    radius: float
    thickness: float
    length: float
    widening: float
    surround: float
    foreign: float
    tissue_hu: float
    core_hu: float
    shell_hu: float
    sd: float

    @property
    def contrast(self) -> float:
        """HU between its core and the liver around."""
        return self.core_hu - self.shell_hu

    @property
    def worth(self) -> float:
        """What decides between parts that lie in each other."""
        return self.contrast / self.sd * self.surround * min(1.0, self.thickness) * math.sqrt(self.radius)

    @property
    def compactness(self) -> float:
        """1 for a ball, about 0.6 for an ellipsoid of 2:1:1, less for tubes, sheets and stars."""
        return min(1.0, self.thickness) / self.length

    def fits(self, rule: Rule) -> bool:
        """Tell whether it is a focus."""
        surround = float(np.interp(self.radius, rule.surround_radii_mm, rule.min_surround))
        foreign = float(np.interp(self.radius, rule.foreign_radii_mm, rule.max_foreign))
        # What is left of a fissure or of the hilum is irregular, and never as large as a large lesion.
        regular = 0.05 + 0.9 * (self.compactness - 0.5) + float(np.interp(self.radius, (8.0, 11.0), (0.0, 0.3)))
        noise = self.sd * float(np.interp(self.radius, rule.contrast_radii_mm, rule.min_contrast_sd))
        return (
            self.compactness >= rule.min_compactness
            and self.length <= rule.max_length
            and self.widening >= rule.min_widening
            and self.surround >= (surround if self.tissue_hu >= rule.water_hu else rule.min_water_surround)
            and self.foreign <= min(foreign, max(0.03, regular))
            and self.contrast >= max(rule.min_contrast_hu, noise)
            and self.worth >= rule.min_worth
        )


def find_foci(grid: ContrastGrid, field: ContrastField, *, bright: bool = False) -> tuple[Focus, ...]:
    """Find what is darker (or brighter) than the liver around it, best first."""
    rule = HYPERDENSE if bright else HYPODENSE
    depth = -field.darker if bright else field.darker
    skin = depth_inside(grid.envelope, grid.spacing) < _SKIN_MM
    blobs = [
        blob
        for level in _LEVELS_HU
        for opened in parts_of_level(grid, field, depth, skin, level, rule)
        if (blob := measured(grid, field, depth, skin, opened)).fits(rule)
    ]
    foci = [_focus(grid, field, depth, blob) for blob in _best_apart(blobs, depth.shape)]
    return tuple(sorted((focus for focus in foci if focus is not None), key=lambda focus: -focus.score))


def parts_of_level(  # noqa: PLR0917 - a step of find_foci, split off to be read
    grid: ContrastGrid, field: ContrastField, depth: FloatVolume, skin: BoolArray, level: float, rule: Rule
) -> Iterator[_Opened]:
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
            if not rule.min_radius_mm <= radius <= rule.max_radius_mm:
                continue
            local = inner[part]
            largest = float(local[seed].max())
            whole = wholes[part] == wholes[part][seed][0]
            rest = whole & (outer > 1.5) & (outer <= 8.0) & ~skin[part]
            yield _Opened(
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


def measured(grid: ContrastGrid, field: ContrastField, depth: FloatVolume, skin: BoolArray, opened: _Opened) -> _Blob:
    """Measure a part of a level."""
    part, inside, outer = opened.part, opened.inside, opened.outer
    places = np.argwhere(inside) * np.asarray(grid.spacing)
    reach = float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1)).max())
    local = depth[part]
    core_hu = float(np.median(local[opened.core]))
    # Not at once beside it: there the edge is soft and smoothed, and the liver's mask may end early.
    near = max(2.5, *grid.spacing[1:])
    shell = (outer > near) & (outer <= near + max(4.0, grid.spacing[0]))
    like_liver = grid.parenchyma[part] | (field.soft[part] & (np.abs(local) < _LIKE_LIVER_HU))
    around = shell & like_liver & (local < max(0.4 * core_hu, 8.0))
    foreign = shell & ~around & ~skin[part]
    known = bool(around.any())
    voxels = max(1, int(np.count_nonzero(shell)))
    return _Blob(
        part=part,
        inside=inside,
        radius=opened.radius,
        thickness=opened.largest / opened.radius,
        length=reach / opened.radius,
        widening=opened.largest / opened.rest_width if opened.rest_width > 0 else math.inf,
        surround=int(np.count_nonzero(around)) / voxels,
        foreign=int(np.count_nonzero(foreign)) / voxels,
        tissue_hu=field.liver_hu - core_hu,
        core_hu=core_hu,
        shell_hu=float(np.mean(np.maximum(local[around], -10.0))) if known else math.inf,
        sd=float(np.mean(field.sd[part][around])) if known else 1.0,
    )


def _radius(inside: BoolArray, grid: ContrastGrid) -> float:
    """Radius in mm of a ball of the same volume."""
    return float((3.0 * int(np.count_nonzero(inside)) * grid.block_mm3 / (4.0 * math.pi)) ** (1 / 3))


def _around(box: Part, margin_mm: float, grid: ContrastGrid, shape: tuple[int, ...]) -> Part:
    a, b, c = (
        slice(max(0, s.start - math.ceil(margin_mm / step)), min(n, s.stop + math.ceil(margin_mm / step)))
        for s, step, n in zip(box, grid.spacing, shape, strict=True)
    )
    return a, b, c


def _best_apart(blobs: list[_Blob], shape: tuple[int, ...]) -> list[_Blob]:
    """Keep the best of those that share voxels."""
    taken = np.zeros(shape, dtype=np.bool_)
    kept: list[_Blob] = []
    for blob in sorted(blobs, key=lambda blob: -blob.worth):
        if not (taken[blob.part] & blob.inside).any():
            taken[blob.part] |= blob.inside
            kept.append(blob)
    return kept


def _focus(grid: ContrastGrid, field: ContrastField, depth: FloatVolume, blob: _Blob) -> Focus | None:
    """Draw the outline where half of the contrast is lost, near the part only and without thin tails."""
    half = (blob.core_hu + blob.shell_hu) / 2
    local = depth[blob.part]
    near = distance_to(blob.inside, grid.spacing) <= _OUTLINE_MM
    allowed = near & field.soft[blob.part] & grid.envelope[blob.part]
    region = _without_tails((local >= half) & allowed, blob, grid)
    if not region.any():
        return None
    around = ndimage.binary_dilation(region)
    bounded = np.where(around, local - np.float32(half), np.float32(-half)).astype(np.float32)
    mask = grid.refined(blob.part, bounded, around & allowed)
    if mask.count == 0:
        return None
    return Focus(mask=mask, contrast_hu=blob.contrast, score=blob.contrast / blob.sd)


def _without_tails(region: BoolArray, blob: _Blob, grid: ContrastGrid) -> BoolArray:
    """Open a region with a ball that suits the part, and keep what then overlaps it."""
    ball = min(3.0, max(1.2, 0.4 * blob.thickness * blob.radius))
    labels, _ = ndimage.label(depth_inside(region, grid.spacing) > ball)
    wanted = np.unique(labels[blob.inside])
    seeds = np.isin(labels, wanted[wanted > 0])
    return np.asarray((distance_to(seeds, grid.spacing) <= ball + 0.5 * grid.spacing[1]) & region)
