"""Lesions inserted into a real CT: the liver's own voxels lowered by a smooth field, their noise kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from m3node.evaluation.soft_shapes import Float32Array, SoftEllipsoid, Vector
from m3node.evaluation.truth import TrueLesion
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import Extent, VoxelMask

HUArray = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class Insertion:
    """A volume with lesions put in.

    Attributes
    ----------
    hu : ndarray of int16
        A changed copy.
    lesions : tuple of TrueLesion
        What was put in.
    """

    hu: HUArray
    lesions: tuple[TrueLesion, ...]


def insert_lesion(
    hu: HUArray,
    geometry: PatientGeometry,
    liver_mask: VoxelMask,
    *,
    centre: Vector,
    diameter_mm: float,
    delta_hu: float,
    edge_mm: float,
    rng: np.random.Generator,
) -> tuple[HUArray, VoxelMask]:
    """Insert one hypodense lesion.

    Parameters
    ----------
    hu : ndarray of int16, shape (slices, rows, columns)
        Left as it is.
    liver_mask : VoxelMask
        The lesion stays inside; at the border it is cut off.
    centre : tuple of float
        Voxel coordinates (k, r, c).
    diameter_mm : float
        Longest axis; the others are 80–100 % of it.
    delta_hu : float
        How much darker than the tissue that was there, positive.
    edge_mm : float
        Width of the soft edge.
    rng : numpy.random.Generator
        Draws the outline.

    Returns
    -------
    hu : ndarray of int16
        A changed copy.
    mask : VoxelMask
        Voxels that are at least half lesion.
    """
    spacing = geometry.spacing
    half = diameter_mm / 2
    shape = SoftEllipsoid(
        centre=(centre[0] * spacing[0], centre[1] * spacing[1], centre[2] * spacing[2]),
        semi=(half * float(rng.uniform(0.8, 1.0)), half * float(rng.uniform(0.8, 1.0)), half),
        turn=float(rng.uniform(0.0, math.pi)),
        edge=edge_mm,
        bump=0.05,
        bump_turn=float(rng.uniform(0.0, math.tau)),
    )
    extent = _reached(shape, spacing, liver_mask.shape)
    block = tuple(slice(first, last) for first, last in extent)
    z, y, x = (
        (np.arange(first, last) * step).astype(np.float32) for (first, last), step in zip(extent, spacing, strict=True)
    )
    inside = liver_mask.within(extent)
    # The capsule is blurred as the scanner blurs it, and only inwards: what lies outside the liver is not touched.
    soft = ndimage.gaussian_filter(inside.astype(np.float32), [0.7 / step for step in spacing])
    inwards = np.clip(2.0 * soft - 1.0, 0.0, 1.0) * inside
    weight: Float32Array = shape.weight(z[:, None, None], y[None, :, None], x[None, None, :]) * inwards.astype(
        np.float32
    )
    changed = hu.copy()
    changed[block] = np.clip(np.rint(hu[block] - delta_hu * weight), -1024, 3071).astype(np.int16)
    mask = VoxelMask(
        shape=liver_mask.shape, start=(extent[0][0], extent[1][0], extent[2][0]), data=np.asarray(weight >= 0.5)
    )
    return changed, mask.cropped()


def random_insertions(
    hu: HUArray,
    geometry: PatientGeometry,
    liver_mask: VoxelMask,
    *,
    seed: int,
    count: int = 3,
    diameter_mm: tuple[float, float] = (10.0, 35.0),
    delta_hu: tuple[float, float] = (30.0, 60.0),
    border_share: float = 0.3,
) -> Insertion:
    """Insert lesions at random places, drawn by seed.

    Parameters
    ----------
    count : int
        Lesions; fewer when there is no room.
    border_share : float
        Share of lesions whose centre lies nearer to the liver's border than half their radius, so that they are cut
        off by it.
    """
    rng = np.random.default_rng(seed)
    spacing = geometry.spacing
    start, depth = _depth_below_border(liver_mask, spacing)
    lesions: list[TrueLesion] = []
    placed: list[tuple[Vector, float]] = []
    for diameter in sorted(rng.uniform(*diameter_mm, size=count).tolist(), reverse=True):
        at_border = bool(rng.random() < border_share)
        low, high = (0.05 * diameter, 0.25 * diameter) if at_border else (0.4 * diameter, math.inf)
        flat = np.flatnonzero((depth > low) & (depth <= high))
        centre = _free_place(flat, depth.shape, start, spacing, diameter, placed, rng) if flat.size else None
        if centre is None:
            continue
        delta = float(rng.uniform(*delta_hu))
        hu, mask = insert_lesion(
            hu,
            geometry,
            liver_mask,
            centre=centre,
            diameter_mm=diameter,
            delta_hu=delta,
            edge_mm=float(rng.uniform(2.0, 4.0)),
            rng=rng,
        )
        placed.append((centre, diameter))
        point = geometry.to_patient(centre)
        lesions.append(
            TrueLesion(
                mask=mask,
                diameter_mm=diameter,
                centre_mm=(float(point[0]), float(point[1]), float(point[2])),
                delta_hu=delta,
            )
        )
    return Insertion(hu=hu, lesions=tuple(lesions))


def _free_place(  # noqa: PLR0917 - a step of the loop above, split off to be read
    flat: npt.NDArray[np.int64],
    shape: tuple[int, ...],
    start: tuple[int, int, int],
    spacing: Vector,
    diameter: float,
    placed: list[tuple[Vector, float]],
    rng: np.random.Generator,
) -> Vector | None:
    for _ in range(200):
        k, r, c = (int(index) for index in np.unravel_index(int(rng.choice(flat)), shape))
        centre = (float(k + start[0]), float(r + start[1]), float(c + start[2]))
        here = [value * step for value, step in zip(centre, spacing, strict=True)]
        if all(
            math.dist(here, [v * s for v, s in zip(other, spacing, strict=True)]) > (diameter + size) / 2 + 8.0
            for other, size in placed
        ):
            return centre
    return None


def _depth_below_border(mask: VoxelMask, spacing: Vector) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Distance in mm of the liver's voxels from its border in plane; the volume's own end is no border."""
    block = mask.cropped()
    padded = np.pad(block.data, ((0, 0), (1, 1), (1, 1)))
    depth = ndimage.distance_transform_edt(padded, sampling=spacing)[:, 1:-1, 1:-1]
    return block.start, np.asarray(depth)


def _reached(shape: SoftEllipsoid, spacing: Vector, grid: tuple[int, int, int]) -> Extent:
    bounds = [
        (max(0, math.floor((c - r) / step)), min(n, math.ceil((c + r) / step) + 1))
        for c, r, step, n in zip(shape.centre, shape.reach, spacing, grid, strict=True)
    ]
    return bounds[0], bounds[1], bounds[2]
