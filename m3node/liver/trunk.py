"""The trunk around a liver: body, spine, and the inside of the ring of ribs, on the working grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from m3node.imaging.mask import BoolArray
from m3node.liver.morphology import erode, fill_axial_holes, largest_component, open_
from m3node.liver.work_grid import FloatVolume, WorkGrid, box_around

FloatPlane = npt.NDArray[np.float32]

SKIN_HU = -300.0
BONE_HU = 180.0
RIB_HU = 180.0
MUSCLE_HU = (0.0, 110.0)
VERTEBRA_MM2 = 200.0
LUNG_HU = -500.0
GAS_HU = -940.0
LUNG_MM3 = 100_000.0

SECTORS = 72
"""Directions around the trunk's axis for which the depth of the ribs is kept: 5° each."""
RIB_REACH_MM = 15.0
"""Along z, a rib also bounds the slices so far from it; intercostal muscle lies between."""
NEIGHBOUR_SECTORS = 3
NEAREST_RIB_MM = 60.0
"""Bone nearer to the trunk's axis than this is spine, or calcification."""
WALL_SHARE = 0.62
"""Bone nearer to the axis than this share of the skin's distance is a stone or contrast medium, no rib."""


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """Landmarks of a trunk.

    Attributes
    ----------
    grid : WorkGrid
        The working grid, cut down to the body.
    body : ndarray of bool, shape (z, y, x)
        Inside the skin: no table, no arm beside the trunk.
    cavity : ndarray of bool, same shape
        The part of the body beside a spine and inside ribs and pelvis, as far as those are seen.
    lung : ndarray of bool, same shape
        Large bodies of air with tissue in it; no gas of the bowel.
    lateral : ndarray of float32, broadcastable
        mm to the patient's right of the spine.
    frontal : ndarray of float32, broadcastable
        mm in front of the spine's middle.
    """

    grid: WorkGrid
    body: BoolArray
    cavity: BoolArray
    lung: BoolArray
    lateral: FloatVolume
    frontal: FloatVolume

    @property
    def width_mm(self) -> float:
        """Width of the body from left to right, median over slices."""
        columns = self.body.any(axis=1).sum(axis=1)
        filled = columns[columns > 0]
        return float(np.median(filled)) * self.grid.spacing[2] if filled.size else 0.0

    @property
    def muscle_hu(self) -> float:
        """Median HU of the muscle behind the spine; 0 where none is seen."""
        behind = (self.frontal < 0.0) & (self.frontal > -60.0) & (np.abs(self.lateral) > 15.0)
        behind = behind & (np.abs(self.lateral) < 60.0) & self.body
        behind &= (self.grid.hu > MUSCLE_HU[0]) & (self.grid.hu < MUSCLE_HU[1])
        return float(np.median(self.grid.hu[behind])) if np.count_nonzero(behind) > 100 else 0.0


def find_trunk(whole: WorkGrid) -> Trunk | None:
    """Find body, spine and ribs; None where there is no body."""
    body = _body(whole)
    box = box_around(body, 0.0, whole.spacing)
    if box is None:
        return None
    grid, body = whole.cropped(box), body[box]
    x, y = grid.patient_axis(0), grid.patient_axis(1)
    middle_x = float((x * body).sum(dtype=np.float64) / body.sum())
    middle_y = float((y * body).sum(dtype=np.float64) / body.sum())
    # Ribs, arms and hips lie aside; what bone there is near the middle line is mostly spine.
    spine = (grid.hu > BONE_HU) & body & (np.abs(x - middle_x) < 50.0) & (y > middle_y - 20.0)
    if spine.any():
        middle_x = float(np.median(np.broadcast_to(x, spine.shape)[spine]))
        spine_y = float(np.median(np.broadcast_to(y, spine.shape)[spine]))
    else:
        spine_y = middle_y + 50.0
    lateral, frontal = middle_x - x, spine_y - y
    cavity = _cavity(grid, body, lateral, frontal)
    cavity[~_beside_spine(grid, body, lateral, frontal)] = False
    return Trunk(grid, body, cavity, _lung(grid, body), lateral, frontal)


def _body(grid: WorkGrid) -> BoolArray:
    # Every second voxel is enough for the outline of a trunk.
    solid = fill_axial_holes(grid.hu[:, ::2, ::2] > SKIN_HU)  # with the lungs: a thin chest wall must not be opened
    spacing = (grid.spacing[0], 2 * grid.spacing[1], 2 * grid.spacing[2])
    # Opening cuts off the table and its cover, blankets and arms that touch the trunk.
    opened = open_(solid, 12.0, spacing)
    if not opened.any():
        return np.zeros(grid.hu.shape, dtype=np.bool_)
    body = fill_axial_holes(largest_component(opened))
    _, height, width = grid.hu.shape
    return np.repeat(np.repeat(body, 2, axis=1), 2, axis=2)[:, :height, :width]


def _beside_spine(grid: WorkGrid, body: BoolArray, lateral: FloatVolume, frontal: FloatVolume) -> npt.NDArray[np.bool_]:
    """Slices on which a vertebra is seen, or near one on which it is; thighs are as even as a liver and have none."""
    vertebra = (grid.hu > BONE_HU) & body & (np.abs(lateral) < 35.0) & (np.abs(frontal) < 60.0)
    area = vertebra.sum(axis=(1, 2)) * (grid.spacing[1] * grid.spacing[2])
    return np.asarray(ndi.uniform_filter1d(area, 1 + 2 * round(15.0 / grid.spacing[0])) > VERTEBRA_MM2)


def _lung(grid: WorkGrid, body: BoolArray) -> BoolArray:
    labels, count = ndi.label((grid.hu < LUNG_HU) & body)
    if count == 0:
        return np.zeros_like(body)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    means = ndi.mean(grid.hu, labels, np.arange(count + 1))
    chosen = (sizes * float(np.prod(grid.spacing)) > LUNG_MM3) & (np.asarray(means) > GAS_HU)
    chosen[0] = False
    return np.asarray(chosen[labels])


def _cavity(grid: WorkGrid, body: BoolArray, lateral: FloatVolume, frontal: FloatVolume) -> BoolArray:
    """Cut the body at the inner edge of the ribs, in polar coordinates around a point 50 mm before the spine.

    Without contrast medium intercostal muscle is as bright as liver and touches it; no threshold parts the two.
    Between ribs the wall is taken to be as thick as at the ribs around.
    """
    shape = body.shape
    right, front = np.broadcast_to(lateral, shape), np.broadcast_to(frontal - 50.0, shape)
    inner = erode(body, 3.0, (1e6, grid.spacing[1], grid.spacing[2]))
    skin = np.zeros((shape[0], SECTORS), dtype=np.float32)
    nearest = np.full((shape[0], SECTORS), np.nan, dtype=np.float32)
    for k in range(shape[0]):
        distance, sector = _polar(right[k], front[k])
        np.maximum.at(skin[k], sector[body[k]], distance[body[k]])
        bone = (grid.hu[k] > RIB_HU) & inner[k] & ~((np.abs(right[k]) < 50.0) & (front[k] < 0.0))
        bone &= (distance > NEAREST_RIB_MM) & (distance > WALL_SHARE * skin[k, sector])
        np.fmin.at(nearest[k], sector[bone], distance[bone])
    reach = max(1, int(RIB_REACH_MM / grid.spacing[0]))
    # Wall or ring as the neighbours have it, whichever leaves more: near the waist the skin says little, at the
    # shoulder blades the ring.
    wall, ring = _around(skin - nearest, reach, 0.5), _around(nearest, reach, 0.3)
    limit = np.where(np.isfinite(wall), np.maximum(skin - wall, ring), np.inf)
    cavity = body.copy()
    for k in range(shape[0]):
        distance, sector = _polar(right[k], front[k])
        cavity[k] &= distance < limit[k, sector]
    return cavity


def _polar(right: FloatPlane, front: FloatPlane) -> tuple[FloatPlane, npt.NDArray[np.intp]]:
    """Distance from the axis, and which sector."""
    angle = (np.arctan2(front, right) + np.pi) / (2 * np.pi)
    return np.hypot(right, front), (angle * SECTORS).astype(np.intp) % SECTORS


def _around(values: npt.NDArray[np.float32], reach: int, share: float) -> npt.NDArray[np.float32]:
    """Quantile over neighbouring slices and sectors; not a number where fewer than three are known."""
    spread = np.full_like(values, np.nan)
    ring = np.concatenate([values[:, -NEIGHBOUR_SECTORS:], values, values[:, :NEIGHBOUR_SECTORS]], axis=1)
    for k in range(values.shape[0]):
        near = ring[max(0, k - reach) : k + reach + 1]
        windows = np.lib.stride_tricks.sliding_window_view(near, 2 * NEIGHBOUR_SECTORS + 1, axis=1)
        ranked = np.sort(windows.transpose(1, 0, 2).reshape(SECTORS, -1), axis=1)
        known = np.isfinite(ranked).sum(axis=1)
        chosen = ranked[np.arange(SECTORS), (known * share).astype(np.intp)]
        spread[k] = np.where(known >= 3, chosen, np.nan)
    return spread
