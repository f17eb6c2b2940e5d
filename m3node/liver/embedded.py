"""The embedded liver segmentation: classical, deterministic, without a model.

It looks for the largest even body of soft tissue in the right upper abdomen: the liver's HU is the mode there, the
mask grows from it with a reference that follows slow shading, ribs bound it outwards, and narrow bridges to heart,
stomach, vessels and muscle are cut by opening. On about 3 mm it decides what is liver; on the full grid only where
the border runs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.grow import RIGHT_OF_SPINE_MM, WINDOW_HU, grow
from m3node.liver.morphology import depth_inside, erode, local_moments, smooth_keeping_edges
from m3node.liver.refine import refine
from m3node.liver.trunk import Trunk, find_trunk
from m3node.liver.work_grid import FloatVolume, WorkGrid, make_work_grid
from m3node.progress import Progress, silent

logger = logging.getLogger(__name__)

ALGORITHM = "m3node embedded liver segmentation 1.0"

SOFT_TISSUE_HU = (-20.0, 220.0)
CORE_DEPTH_MM = 8.0
MAX_MODES = 5

MIN_TRUNK_WIDTH_MM = 170.0
MIN_BALL_MM = 18.0
THICK_BALL_MM = 25.0
MIN_BALL_IF_FLUID_MM = 35.0
MIN_CENTRE_RIGHT_MM = 15.0
MIN_TIP_RIGHT_MM = 50.0
MAX_FLUID_HU = 25.0
BELOW_MUSCLE_HU = 8.0

STAGES = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Tissue:
    """The working grid without its noise.

    Attributes
    ----------
    smooth : ndarray of float32
        HU, edges kept.
    even : ndarray of bool
        Where it varies little.
    """

    smooth: FloatVolume
    even: BoolArray


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
    report = progress or silent
    trunk = find_trunk(make_work_grid(volume))
    report("liver", 1, STAGES)
    if trunk is None or trunk.width_mm < MIN_TRUNK_WIDTH_MM:
        logger.info("no liver: no trunk in view")
        return None
    tissue = _tissue(trunk.grid)
    modes = _liver_modes(trunk, tissue)
    report("liver", 2, STAGES)
    why_not = "no even soft tissue right of the spine"
    for mode in modes:
        grown = grow(trunk, tissue.smooth, mode)
        why_not = _why_not_liver(trunk, tissue, grown.liver)
        if not why_not:
            report("liver", 3, STAGES)
            mask = refine(volume, trunk, grown)
            report("liver", STAGES, STAGES)
            return mask
    logger.info("no liver: %s", why_not)
    return None


def _tissue(grid: WorkGrid) -> _Tissue:
    clipped = np.clip(grid.hu, -200.0, 300.0)
    noise = _noise(clipped)
    # Averaging over 4 mm serves up to a noise of 10 HU on this grid; twice the noise asks for more voxels.
    radius = float(np.clip(4.0 * noise / 12.0, 4.0, 8.0))
    box = [int(2 * round(radius / step) + 1) for step in grid.spacing]
    size = (box[0], box[1], box[2])
    smooth = smooth_keeping_edges(clipped, size, max(8.0, 1.5 * noise))
    _, variance = local_moments(smooth, size)
    return _Tissue(smooth=smooth, even=variance < 14.0**2)


def _noise(hu: FloatVolume) -> float:
    """SD of the noise in soft tissue, from differences of neighbours."""
    soft = (hu > -50.0) & (hu < 200.0)
    differences = np.abs(np.diff(hu, axis=2))[soft[:, :, 1:] & soft[:, :, :-1]]
    return 1.4826 * float(np.median(differences)) / float(np.sqrt(2.0)) if differences.size else 0.0


def _liver_modes(trunk: Trunk, tissue: _Tissue) -> list[float]:
    """HU that are commonest deep inside even soft tissue right of the spine, commonest first."""
    soft = (tissue.smooth > SOFT_TISSUE_HU[0]) & (tissue.smooth < SOFT_TISSUE_HU[1])
    core = erode(soft & tissue.even & trunk.cavity, CORE_DEPTH_MM, trunk.grid.spacing)
    core &= trunk.lateral > RIGHT_OF_SPINE_MM
    counts, edges = np.histogram(tissue.smooth[core], np.arange(SOFT_TISSUE_HU[0], SOFT_TISSUE_HU[1] + 1, 2.0))
    density = ndi.gaussian_filter1d(counts.astype(np.float64), 2.5, mode="constant")
    modes: list[float] = []
    while len(modes) < MAX_MODES and density.max() > 0.1 * counts.sum() / len(counts):
        mode = float(edges[int(density.argmax())]) + 1.0
        modes.append(mode)
        # What lies within the window of a mode is the same tissue.
        density[np.abs(edges[:-1] + 1.0 - mode) < 0.8 * WINDOW_HU] = 0.0
    return modes


def _why_not_liver(trunk: Trunk, tissue: _Tissue, coarse: BoolArray) -> str:
    """Say what speaks against a liver; empty when nothing does."""
    if not coarse.any():
        return "no even soft tissue is thick enough"
    hu = float(np.median(tissue.smooth[coarse]))
    ball = float(depth_inside(coarse, trunk.grid.spacing, MIN_BALL_IF_FLUID_MM + 1.0).max())
    right = float(np.broadcast_to(trunk.lateral, coarse.shape)[coarse].mean())
    # Bowel and bladder hold fluid darker than muscle; so is a very fatty liver, but that is thick and far right.
    fluid = hu < max(MAX_FLUID_HU, trunk.muscle_hu - BELOW_MUSCLE_HU)
    if ball < (MIN_BALL_IF_FLUID_MM if fluid else MIN_BALL_MM):
        return f"the largest even tissue, of {hu:.0f} HU, holds a ball of {ball:.0f} mm radius only"
    # A liver's tip is thin and far right; psoas is as thin and near the spine.
    if right < (MIN_TIP_RIGHT_MM if fluid or ball < THICK_BALL_MM else MIN_CENTRE_RIGHT_MM):
        return f"the largest even tissue, of {hu:.0f} HU, lies {right:.0f} mm right of the spine only"
    return ""
