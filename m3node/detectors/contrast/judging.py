"""What a part of a level must be to count as a focus."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from m3node.detectors.contrast.field import ContrastField
from m3node.detectors.contrast.grid import ContrastGrid, FloatVolume
from m3node.detectors.contrast.parts import OpenedPart, Part
from m3node.imaging.mask import BoolArray

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
        See `Blob.compactness`.
    max_length : float
        Longest half extent over the radius: 1 for a ball, much for tubes.
    surround_radii_mm, min_surround : tuple of float
        Share of the shell around it that is liver; the rest is what a lesion at the capsule has beside it. Muscle
        that lies flat on the liver has just under half, a lesion that the capsule cuts through its middle just over.
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
        See `Blob.worth`.
    """

    min_radius_mm: float = 2.5
    max_radius_mm: float = 60.0
    min_compactness: float = 0.35
    max_length: float = 1.8
    surround_radii_mm: tuple[float, float] = (3.0, 5.5)
    min_surround: tuple[float, float] = (0.9, 0.52)
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
class Blob:
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
        # A single place of a coarse grid has no length: nothing says that it is no ball.
        return min(1.0, self.thickness) / self.length if self.length > 0 else 1.0

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


def measured(grid: ContrastGrid, field: ContrastField, depth: FloatVolume, skin: BoolArray, opened: OpenedPart) -> Blob:
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
    return Blob(
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
