"""The trunk around a liver: body, spine, and the inside of the ring of ribs, on the working grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.imaging.mask import BoolArray
from m3node.liver.morphology import depth_inside, erode, fill_axial_holes, largest_component, open_
from m3node.liver.work_grid import FloatVolume, WorkGrid

SKIN_HU = -300.0
BONE_HU = 180.0
RIB_HU = 150.0

SECTORS = 72
"""Directions around the trunk's axis for which the distance of the ribs is kept: 5° each."""
RIB_REACH_MM = 15.0
"""Along z, a rib also bounds the slices so far from it; intercostal muscle lies between."""
NEIGHBOUR_SECTORS = 3
NEAREST_RIB_MM = 60.0
"""Bone nearer to the trunk's axis than this is spine, or calcification."""
WALL_SHARE = 0.55
"""Bone nearer to the axis than this share of the skin's distance is a stone or contrast medium, no rib."""


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """Landmarks of a trunk.

    Attributes
    ----------
    body : ndarray of bool, shape (z, y, x)
        Inside the skin: no table, no arm beside the trunk.
    cavity : ndarray of bool, same shape
        The part of the body inside ribs and pelvis, as far as those are seen; elsewhere all of it.
    lateral : ndarray of float32, broadcastable
        mm to the patient's right of the spine.
    frontal : ndarray of float32, broadcastable
        mm in front of the spine's middle.
    """

    body: BoolArray
    cavity: BoolArray
    lateral: FloatVolume
    frontal: FloatVolume


def find_trunk(grid: WorkGrid) -> Trunk | None:
    """Find body, spine and ribs; None where there is no body."""
    body = _body(grid)
    if not body.any():
        return None
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
    return Trunk(body=body, cavity=_cavity(grid, body, lateral, frontal), lateral=lateral, frontal=frontal)


def _body(grid: WorkGrid) -> BoolArray:
    solid = grid.hu > SKIN_HU
    # Opening cuts off the table and its cover, blankets and arms that touch the trunk.
    opened = open_(solid, 12.0, grid.spacing)
    if not opened.any():
        return opened
    return fill_axial_holes(largest_component(opened))


def _cavity(grid: WorkGrid, body: BoolArray, lateral: FloatVolume, frontal: FloatVolume) -> BoolArray:
    """Cut the body at the inner edge of the ribs, in polar coordinates around a point 50 mm before the spine.

    Without contrast medium intercostal muscle is as bright as liver and touches it; no threshold parts the two.
    """
    right, front = lateral, frontal - 50.0
    distance = np.hypot(right, front)
    sector = ((np.arctan2(front, right) + np.pi) / (2 * np.pi) * SECTORS).astype(np.intp) % SECTORS
    shape = body.shape
    distance, sector = np.broadcast_to(distance, shape), np.broadcast_to(sector, shape)
    slices = np.broadcast_to(np.arange(shape[0])[:, None, None], shape)
    skin = np.zeros((shape[0], SECTORS), dtype=np.float32)
    np.maximum.at(skin, (slices[body], sector[body]), distance[body])
    bone = (grid.hu > RIB_HU) & erode(body, 3.0, (1e6, grid.spacing[1], grid.spacing[2]))
    bone &= (distance > NEAREST_RIB_MM) & ~((np.abs(right) < 50.0) & (front < 0.0))
    bone &= distance > WALL_SHARE * skin[slices, sector]
    nearest = np.full((shape[0], SECTORS), np.nan, dtype=np.float32)
    np.fmin.at(nearest, (slices[bone], sector[bone]), distance[bone])
    limit = _around(nearest, max(1, int(RIB_REACH_MM / grid.spacing[0])))
    return np.asarray(body & (distance < limit[slices, sector]))


def _around(nearest: npt.NDArray[np.float32], reach: int) -> npt.NDArray[np.float32]:
    """Spread the ribs' distances over neighbouring slices and sectors; infinite where none is near."""
    limit = np.full_like(nearest, np.inf)
    ring = np.concatenate([nearest[:, -NEIGHBOUR_SECTORS:], nearest, nearest[:, :NEIGHBOUR_SECTORS]], axis=1)
    for k in range(nearest.shape[0]):
        for sector in range(SECTORS):
            near = ring[max(0, k - reach) : k + reach + 1, sector : sector + 2 * NEIGHBOUR_SECTORS + 1]
            known = near[np.isfinite(near)]
            if known.size >= 3:
                # A low percentile, not the least: one calcified vessel must not cut into the liver.
                limit[k, sector] = np.percentile(known, 30)
    return limit


def width_mm(grid: WorkGrid, body: BoolArray) -> float:
    """Width of the body from left to right: the median over slices, in mm."""
    columns = body.any(axis=1).sum(axis=1)
    filled = columns[columns > 0]
    return float(np.median(filled)) * grid.spacing[2] if filled.size else 0.0


def deepest(mask: BoolArray, spacing: tuple[float, float, float]) -> float:
    """Radius in mm of the largest ball that fits into a mask, where the grid's border does not count."""
    return float(depth_inside(mask, spacing).max()) if mask.any() else 0.0
