"""Growing the liver on the working grid: around its mode, with a reference that follows slow shading."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray
from m3node.liver.morphology import depth_inside, dilate, erode
from m3node.liver.trunk import Trunk
from m3node.liver.work_grid import Box, FloatVolume, box_around

WINDOW_HU = 25.0
"""Half the window around the local reference."""
DRIFT_HU = (-40.0, 25.0)
"""How far the local reference may leave the mode: beam hardening by arms darkens the back of a liver by 30 HU."""
REFERENCE_SIGMA_MM = 18.0
MAJORITY = 0.7
REACH_MM = 60.0
"""How far beyond its first core a liver is looked for."""
ROUNDS = 4
OPENING_MM = 7.0
VESSEL_OPENING_MM = 11.0
"""In front of the spine the opening is wider: aorta and vena cava are as thick as the liver's edges are thin."""
CLOSING_MM = 8.0
"""Bridges vessels and small lesions that reach the border."""
RIGHT_OF_SPINE_MM = 10.0

BESIDE_LUNG_MM = OPENING_MM + 10.0
HEART_IN_LUNGS = 0.3
"""Share of its surface beside the lungs from which a part is heart."""
HEART_HU = 5.0
HEART_SIGMA_MM = 6.0
HEART_MM3 = 30_000.0

SATELLITE_GAP_MM = 20.0
SATELLITE_HU = 6.0
SATELLITE_MM3 = 5_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """A liver on the working grid.

    Attributes
    ----------
    liver : ndarray of bool
        Its voxels; none when nothing deep enough is near the mode.
    reference : ndarray of float32
        Its expected HU, everywhere.
    """

    liver: BoolArray
    reference: FloatVolume


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """What growth looks at: a part of the working grid.

    Attributes
    ----------
    smooth : ndarray of float32
        HU without noise.
    cavity : ndarray of bool
        Where a liver may lie.
    beside_lung : ndarray of bool
        Where a core beside a lung would lie: pericardium, its fat and the opening are between.
    opening : ndarray of float32
        mm of tissue around a voxel that make it the core of something.
    lateral, frontal : ndarray of float32
        mm to the right and in front of the spine.
    spacing : tuple of float
        mm.
    """

    smooth: FloatVolume
    cavity: BoolArray
    beside_lung: BoolArray
    opening: FloatVolume
    lateral: FloatVolume
    frontal: FloatVolume
    spacing: tuple[float, float, float]

    def cropped(self, box: Box) -> _Field:
        return replace(
            self,
            smooth=self.smooth[box],
            cavity=self.cavity[box],
            beside_lung=self.beside_lung[box],
            opening=self.opening[box],
            lateral=self.lateral[box],
            frontal=self.frontal[box],
        )


def grow(trunk: Trunk, smooth: FloatVolume, mode: float) -> Grown:
    """Grow the liver around the HU that is its mode.

    Parameters
    ----------
    trunk : Trunk
        Where a liver may lie.
    smooth : ndarray of float32
        The working grid's HU, without noise.
    mode : float
        HU.
    """
    shape = smooth.shape
    before_spine = (np.abs(trunk.lateral) < 45.0) & (trunk.frontal > 0.0) & (trunk.frontal < 85.0)
    opening = np.where(before_spine, np.float32(VESSEL_OPENING_MM), np.float32(OPENING_MM))
    field = _Field(
        smooth=smooth,
        cavity=trunk.cavity,
        beside_lung=dilate(trunk.lung, BESIDE_LUNG_MM, trunk.grid.spacing),
        opening=np.broadcast_to(opening, shape),
        lateral=np.broadcast_to(trunk.lateral, shape),
        frontal=np.broadcast_to(trunk.frontal, shape),
        spacing=trunk.grid.spacing,
    )
    liver = np.zeros(shape, dtype=np.bool_)
    reference = np.full(shape, mode, dtype=np.float32)
    labels, main = _parts(field, reference)
    box = box_around(labels == main, REACH_MM, field.spacing) if main else None
    if box is None:
        return Grown(liver, reference)
    field, labels, local = field.cropped(box), labels[box], reference[box]
    for _ in range(ROUNDS):
        local = _follow(field, labels == main, mode)
        labels, main = _parts(field, local)
        if main == 0:
            return Grown(liver, reference)
    core = _without_heart(field, labels == main) | _satellites(field, labels, main, local)
    near = (np.abs(field.smooth - local) < WINDOW_HU) & field.cavity
    part = dilate(core, OPENING_MM + 2.0, field.spacing) & near
    soft = (field.smooth > np.maximum(0.0, local - 3.0 * WINDOW_HU)) & field.cavity
    part |= erode(dilate(part, CLOSING_MM, field.spacing), CLOSING_MM, field.spacing) & soft
    liver[box], reference[box] = part, local
    return Grown(liver, reference)


def _parts(field: _Field, reference: FloatVolume) -> tuple[npt.NDArray[np.int32], int]:
    """Label what is near the reference and deeper than the opening; name the largest part on the right, or 0."""
    near = np.abs(field.smooth - reference) < WINDOW_HU
    # Single voxels of noise must not pierce what is then eroded.
    window = (near | (ndi.uniform_filter(near.astype(np.float32), 3) > MAJORITY)) & field.cavity
    labels, count = ndi.label(depth_inside(window, field.spacing, VESSEL_OPENING_MM + 0.1) > field.opening)
    sizes = np.bincount(labels[field.lateral > RIGHT_OF_SPINE_MM], minlength=count + 1)
    sizes[0] = 0
    return np.asarray(labels, dtype=np.int32), int(sizes.argmax())


def _follow(field: _Field, core: BoolArray, mode: float) -> FloatVolume:
    """Mean HU of the core around each voxel, bounded; the mode where no core is near."""
    sigma = [REFERENCE_SIGMA_MM / step for step in field.spacing]
    weight = ndi.gaussian_filter(core.astype(np.float32), sigma, truncate=3.0)
    total = ndi.gaussian_filter(np.where(core, field.smooth, np.float32(0.0)), sigma, truncate=3.0)
    followed = np.clip(total / np.maximum(weight, 1e-6), mode + DRIFT_HU[0], mode + DRIFT_HU[1])
    return np.asarray(np.where(weight > 1e-5, followed, np.float32(mode)), dtype=np.float32)


def _satellites(field: _Field, labels: npt.NDArray[np.int32], main: int, reference: FloatVolume) -> BoolArray:
    """Find parts that a fissure or large lesions cut off: near the rest, of the same HU, in front or far right.

    In front lies the left lobe; far right, farther than kidney and psoas, the back of the right one.
    """
    core = labels == main
    chosen = np.zeros_like(core)
    off = depth_inside(~core, field.spacing, SATELLITE_GAP_MM + 1.0)
    for label, place in enumerate(ndi.find_objects(labels), start=1):
        if label == main or place is None:
            continue
        part = labels[place] == label
        if part.sum() * np.prod(field.spacing) < SATELLITE_MM3 or off[place][part].min() > SATELLITE_GAP_MM:
            continue
        right, front = float(field.lateral[place][part].mean()), float(field.frontal[place][part].mean())
        difference = float(np.median(field.smooth[place][part])) - float(np.median(reference[place][part]))
        if _in_lungs(field.beside_lung[place], part) > HEART_IN_LUNGS:
            continue
        if ((front > 40.0 and right > -80.0) or right > 70.0) and abs(difference) < SATELLITE_HU:
            chosen[place] |= part
    return np.asarray(chosen)


def _without_heart(field: _Field, core: BoolArray) -> BoolArray:
    """Cut off what lies in front of the spine, between the lungs and of another HU: the heart, on the left lobe.

    Where heart and liver touch, no opening parts them, and without contrast medium blood is only 5 to 20 HU darker:
    less than shading within a liver. What counts is both together, the HU and the place.
    """
    right_lobe = core & (field.lateral > 30.0)
    if not field.beside_lung.any() or not right_lobe.any():
        return core
    level = float(np.median(field.smooth[right_lobe]))
    sigma = [HEART_SIGMA_MM / step for step in field.spacing]
    weight = ndi.gaussian_filter(core.astype(np.float32), sigma, truncate=3.0)
    even = ndi.gaussian_filter(np.where(core, field.smooth, np.float32(0.0)), sigma, truncate=3.0)
    even /= np.maximum(weight, 1e-3)
    kept = core.copy()
    for darker in (True, False):
        off = (level - even) if darker else (even - level)
        labels, _ = ndi.label(core & (off > HEART_HU) & (field.lateral < 50.0))
        for label, place in enumerate(ndi.find_objects(labels), start=1):
            part = labels[place] == label
            if part.sum() * np.prod(field.spacing) < HEART_MM3:
                continue
            middle = float(field.lateral[place][part].mean()) < 20.0 and float(field.frontal[place][part].mean()) > 20.0
            if middle and _in_lungs(field.beside_lung[place], part) > HEART_IN_LUNGS:
                kept[place] &= ~part
    return kept if kept.any() else core


def _in_lungs(beside_lung: BoolArray, part: BoolArray) -> float:
    """Share of a part's surface that lies beside the lungs."""
    surface = part & ~ndi.binary_erosion(part)
    count = int(surface.sum())
    return float((surface & beside_lung).sum()) / count if count else 0.0
