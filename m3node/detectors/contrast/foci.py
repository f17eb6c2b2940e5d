"""Compact places that stand out from the liver around them.

Thresholds are lowered step by step; what each leaves is opened with balls of several sizes, which parts a lesion from
the vessel, fissure or muscle beside it, and each part counts when it is compact, surrounded by liver and stands out
from it. Of parts that share voxels the best one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from m3node.detectors.contrast.distance import depth_inside, distance_to
from m3node.detectors.contrast.field import ContrastField
from m3node.detectors.contrast.grid import ContrastGrid, FloatVolume
from m3node.detectors.contrast.judging import HYPERDENSE, HYPODENSE, Blob, measured
from m3node.detectors.contrast.parts import parts_of_level
from m3node.imaging.mask import BoolArray, VoxelMask

LEVELS_HU = (70.0, 50.0, 38.0, 29.0, 22.0, 17.0, 13.0, 10.0)
"""Levels in HU below the liver around."""

SKIN_MM = 12.0
"""Nearer than this to the envelope's outside there may be fat, muscle or lung beside a lesion; deeper there may not."""

_OUTLINE_MM = 3.0
"""A focus's outline lies no farther outside the part: that much is lost to mixed voxels and to opening."""


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


def find_foci(grid: ContrastGrid, field: ContrastField, *, bright: bool = False) -> tuple[Focus, ...]:
    """Find what is darker (or brighter) than the liver around it, best first."""
    rule = HYPERDENSE if bright else HYPODENSE
    depth = -field.darker if bright else field.darker
    skin = depth_inside(grid.envelope, grid.spacing) < SKIN_MM
    radii_mm = (rule.min_radius_mm, rule.max_radius_mm)
    blobs = [
        blob
        for level in LEVELS_HU
        for opened in parts_of_level(grid, field, depth, skin, level, radii_mm)
        if (blob := measured(grid, field, depth, skin, opened)).fits(rule)
    ]
    foci = [_focus(grid, field, depth, blob) for blob in _best_apart(blobs, depth.shape)]
    return tuple(sorted((focus for focus in foci if focus is not None), key=lambda focus: -focus.score))


def _best_apart(blobs: list[Blob], shape: tuple[int, ...]) -> list[Blob]:
    """Keep the best of those that share voxels."""
    taken = np.zeros(shape, dtype=np.bool_)
    kept: list[Blob] = []
    for blob in sorted(blobs, key=lambda blob: -blob.worth):
        if not (taken[blob.part] & blob.inside).any():
            taken[blob.part] |= blob.inside
            kept.append(blob)
    return kept


def _focus(grid: ContrastGrid, field: ContrastField, depth: FloatVolume, blob: Blob) -> Focus | None:
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


def _without_tails(region: BoolArray, blob: Blob, grid: ContrastGrid) -> BoolArray:
    """Open a region with a ball that suits the part, and keep what then overlaps it."""
    ball = min(3.0, max(1.2, 0.4 * blob.thickness * blob.radius))
    labels, _ = ndimage.label(depth_inside(region, grid.spacing) > ball)
    wanted = np.unique(labels[blob.inside])
    seeds = np.isin(labels, wanted[wanted > 0])
    return np.asarray((distance_to(seeds, grid.spacing) <= ball + 0.5 * grid.spacing[1]) & region)
