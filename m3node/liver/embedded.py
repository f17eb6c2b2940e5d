"""The embedded liver segmentation: classical, deterministic, without a model.

It looks for the largest even body of soft tissue in the right upper abdomen: the liver's HU is the mode there, the
mask grows from it with a reference that follows slow shading, ribs bound it outwards, and narrow bridges to heart,
stomach, vessels and muscle are cut by opening. On about 3 mm it decides what is liver; on the full grid only where
the border runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.morphology import (
    depth_inside,
    dilate,
    erode,
    local_moments,
    smooth_keeping_edges,
)
from m3node.liver.refine import refine
from m3node.liver.trunk import Trunk, deepest, find_trunk, width_mm
from m3node.liver.work_grid import FloatVolume, WorkGrid, make_work_grid

logger = logging.getLogger(__name__)

ALGORITHM = "m3node embedded liver segmentation 1.0"

SOFT_TISSUE_HU = (-20.0, 220.0)
CORE_DEPTH_MM = 8.0
RIGHT_OF_SPINE_MM = 10.0

WINDOW_HU = 25.0
"""Half the window around the local reference."""
DRIFT_HU = (-40.0, 25.0)
"""How far the local reference may leave the mode: beam hardening by arms darkens the back of a liver by 30 HU."""
REFERENCE_SIGMA_MM = 18.0
GROWTH_ROUNDS = 4
OPENING_MM = 7.0
VESSEL_OPENING_MM = 11.0
"""In front of the spine the opening is wider: aorta and vena cava are as thick as the liver's edges are thin."""

MIN_BALL_MM = 20.0
MIN_TRUNK_WIDTH_MM = 170.0
MIN_CENTRE_RIGHT_MM = 15.0

Progress = Callable[[str, int, int], None]
STAGES = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Tissue:
    """What the segmentation knows of the working grid besides anatomy."""

    smooth: FloatVolume
    even: BoolArray
    noise_sd: float


def segment_liver(volume: CTVolume, progress: Progress | None = None) -> VoxelMask | None:
    """Segment the liver.

    Parameters
    ----------
    volume : CTVolume
        With or without contrast medium, of any extent; index axes in any order and direction.
    progress : callable, optional
        Called with ("liver", done, total).

    Returns
    -------
    VoxelMask or None
        Liver tissue, enclosed lesions and vessels included; None when no liver is in view.
    """
    report = progress or (lambda _stage, _done, _total: None)
    grid = make_work_grid(volume)
    report("liver", 1, STAGES)
    trunk = find_trunk(grid)
    if trunk is None or width_mm(grid, trunk.body) < MIN_TRUNK_WIDTH_MM:
        logger.info("no liver: no trunk in view")
        return None
    tissue = _tissue(grid)
    mode = _liver_mode(grid, trunk, tissue)
    report("liver", 2, STAGES)
    if mode is None:
        logger.info("no liver: no even soft tissue right of the spine")
        return None
    coarse, reference = _grow(grid, trunk, tissue, mode)
    report("liver", 3, STAGES)
    why_not = _why_not_liver(grid, trunk, coarse)
    if why_not:
        logger.info("no liver: %s", why_not)
        return None
    mask = refine(volume, grid, coarse, reference, WINDOW_HU)
    report("liver", STAGES, STAGES)
    return mask


def _tissue(grid: WorkGrid) -> _Tissue:
    low, high = -50.0, 200.0
    soft = (grid.hu > low) & (grid.hu < high)
    differences = np.abs(np.diff(grid.hu, axis=2))[soft[:, :, 1:] & soft[:, :, :-1]]
    noise = 1.4826 * float(np.median(differences)) / np.sqrt(2.0) if differences.size else 0.0
    box = [int(2 * round(4.0 / step) + 1) for step in grid.spacing]
    size = (box[0], box[1], box[2])
    smooth = smooth_keeping_edges(np.clip(grid.hu, -200.0, 300.0), size, max(8.0, 1.5 * noise))
    _, variance = local_moments(smooth, size)
    return _Tissue(smooth=smooth, even=variance < 14.0**2, noise_sd=noise)


def _liver_mode(grid: WorkGrid, trunk: Trunk, tissue: _Tissue) -> float | None:
    """Find the commonest HU deep inside even soft tissue right of the spine."""
    soft = (tissue.smooth > SOFT_TISSUE_HU[0]) & (tissue.smooth < SOFT_TISSUE_HU[1])
    core = erode(soft & tissue.even & trunk.cavity, CORE_DEPTH_MM, grid.spacing)
    core &= trunk.lateral > RIGHT_OF_SPINE_MM
    if not core.any():
        return None
    counts, edges = np.histogram(tissue.smooth[core], np.arange(SOFT_TISSUE_HU[0], SOFT_TISSUE_HU[1] + 1, 2.0))
    peak = int(ndi.gaussian_filter1d(counts.astype(np.float64), 2.5).argmax())
    return float(edges[peak]) + 1.0


def _grow(grid: WorkGrid, trunk: Trunk, tissue: _Tissue, mode: float) -> tuple[BoolArray, FloatVolume]:
    """Grow the liver around its mode, letting the reference follow slow shading; return it and the reference."""
    before_spine = (np.abs(trunk.lateral) < 45.0) & (trunk.frontal > 0.0) & (trunk.frontal < 85.0)
    opening = np.where(before_spine, np.float32(VESSEL_OPENING_MM), np.float32(OPENING_MM))
    right = np.broadcast_to(trunk.lateral > RIGHT_OF_SPINE_MM, grid.hu.shape)
    reference = np.full(grid.hu.shape, mode, dtype=np.float32)
    sigma = [REFERENCE_SIGMA_MM / step for step in grid.spacing]
    for _ in range(GROWTH_ROUNDS):
        window = (np.abs(tissue.smooth - reference) < WINDOW_HU) & trunk.cavity
        core = _largest_on(right, depth_inside(window, grid.spacing) > opening)
        weight = ndi.gaussian_filter(core.astype(np.float32), sigma)
        total = ndi.gaussian_filter(np.where(core, tissue.smooth, np.float32(0.0)), sigma)
        followed = np.clip(total / np.maximum(weight, 1e-6), mode + DRIFT_HU[0], mode + DRIFT_HU[1])
        reference = np.where(weight > 1e-5, followed, np.float32(mode)).astype(np.float32)
    window = (np.abs(tissue.smooth - reference) < WINDOW_HU) & trunk.cavity
    core = _largest_on(right, depth_inside(window, grid.spacing) > opening)
    return dilate(core, OPENING_MM + 2.0, grid.spacing) & window, reference


def _largest_on(side: BoolArray, mask: BoolArray) -> BoolArray:
    """Keep the part of a mask that has most voxels on one side of the body."""
    labels, count = ndi.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels[side], minlength=count + 1)
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def _why_not_liver(grid: WorkGrid, trunk: Trunk, coarse: BoolArray) -> str:
    """Say what speaks against a liver; empty when nothing does."""
    if not coarse.any():
        return "no even soft tissue is thick enough"
    ball = deepest(coarse, grid.spacing)
    if ball < MIN_BALL_MM:
        return f"the thickest even tissue holds a ball of {ball:.0f} mm radius only"
    right = float(np.broadcast_to(trunk.lateral, coarse.shape)[coarse].mean())
    if right < MIN_CENTRE_RIGHT_MM:
        return f"the thickest even tissue lies {right:.0f} mm right of the spine only"
    return ""
