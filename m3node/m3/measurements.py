"""What is measured on a lesion: axial diameters, volume, HU, place."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.m3.lesion import Diameter, Measurements, Point3

FloatArray = npt.NDArray[np.float64]


def measure(volume: CTVolume, mask: VoxelMask, *, key_slice: int, hu_liver_mean: float) -> Measurements:
    """Measure a lesion.

    Parameters
    ----------
    mask : VoxelMask
        Not empty; on ``key_slice`` neither.
    key_slice : int
        Slice that the diameters are taken on.
    hu_liver_mean : float
        Handed on.
    """
    longest, perpendicular = axial_diameters(mask, key_slice, volume.geometry)
    block = tuple(slice(first, first + size) for first, size in zip(mask.start, mask.data.shape, strict=True))
    hu = volume.hu[block][mask.data].astype(np.float64)
    centre = volume.geometry.to_patient(np.argwhere(mask.data).mean(axis=0) + np.asarray(mask.start))
    return Measurements(
        longest=longest,
        perpendicular=perpendicular,
        volume_ml=mask.count * volume.geometry.voxel_volume_ml,
        hu_mean=float(hu.mean()),
        hu_sd=float(hu.std()),
        hu_liver_mean=hu_liver_mean,
        centroid_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
    )


def axial_diameters(mask: VoxelMask, k: int, geometry: PatientGeometry) -> tuple[Diameter, Diameter]:
    """Measure the longest diameter on slice ``k`` and the longest one perpendicular to it.

    A voxel reaches from edge to edge: the outline is drawn through the middles of the voxels' outer edges, so that a
    row of n voxels is n voxels long and a disc comes out unbiased. The perpendicular is the longest chord of the
    outline's convex hull at a right angle to the longest diameter.

    Returns
    -------
    longest, perpendicular : Diameter
        End points in voxel coordinates on that outline, so up to half a voxel outside the outermost centres.
    """
    plane = mask.data[k - mask.start[0]]
    points = _outline(plane) + np.asarray(mask.start[1:], dtype=np.float64)
    scale = np.asarray(geometry.spacing[1:])
    hull = points[ConvexHull(points * scale).vertices]
    millimetres = hull * scale
    distances = squareform(pdist(millimetres))
    a, b = np.unravel_index(int(np.argmax(distances)), distances.shape)
    longest = _diameter(hull[a], hull[b], float(distances[a, b]), k)

    along = (millimetres[b] - millimetres[a]) / distances[a, b]
    first, second = _longest_chord_across(millimetres, along)
    across = _diameter(first / scale, second / scale, float(np.linalg.norm(second - first)), k)
    return longest, across


def _outline(plane: BoolArray) -> FloatArray:
    """Middles of the four edges of every border voxel, (row, column)."""
    padded = np.pad(plane, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    border = np.argwhere(plane & ~inner).astype(np.float64)
    edges = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
    return np.asarray((border[:, None, :] + edges[None]).reshape(-1, 2))


def _longest_chord_across(polygon: FloatArray, along: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Find the convex polygon's longest chord perpendicular to ``along``; it passes through a corner."""
    normal = np.array([-along[1], along[0]])
    t, s = polygon @ along, polygon @ normal
    low = _envelope_line(t, s, lower=True)
    high = _envelope_line(t, s, lower=False)
    at = np.unique(t)
    bottom, top = np.interp(at, *low), np.interp(at, *high)
    best = int(np.argmax(top - bottom))
    base = at[best] * along
    return base + bottom[best] * normal, base + top[best] * normal


def _envelope_line(t: FloatArray, s: FloatArray, *, lower: bool) -> tuple[FloatArray, FloatArray]:
    """Return the lower or upper side of a convex polygon as a function of ``t``."""
    first, last = int(np.argmin(t)), int(np.argmax(t))
    slope = (s[last] - s[first]) / (t[last] - t[first])
    above = s - (s[first] + slope * (t - t[first]))
    side = above <= 1e-9 if lower else above >= -1e-9
    order = np.lexsort((-s if lower else s, t))
    chosen = [index for index in order if side[index]]
    return t[chosen], s[chosen]


def _diameter(start: FloatArray, end: FloatArray, length: float, k: int) -> Diameter:
    first: Point3 = (float(k), float(start[0]), float(start[1]))
    second: Point3 = (float(k), float(end[0]), float(end[1]))
    return Diameter(length_mm=length, start=first, end=second)


def mean_outside(volume: CTVolume, parenchyma: VoxelMask, lesions: list[VoxelMask]) -> float:
    """Mean HU of the parenchyma outside every lesion, slice by slice; nan without such a voxel."""
    total, count = 0.0, 0
    k0, r0, c0 = parenchyma.start
    depth, rows, columns = parenchyma.data.shape
    for index in range(depth):
        k = k0 + index
        plane = parenchyma.data[index]
        for lesion in lesions:
            if lesion.start[0] <= k < lesion.start[0] + lesion.data.shape[0]:
                plane = plane & ~lesion.within(((k, k + 1), (r0, r0 + rows), (c0, c0 + columns)))[0]
        hu = volume.hu[k, r0 : r0 + rows, c0 : c0 + columns][plane]
        total += float(hu.sum(dtype=np.float64))
        count += hu.size
    return total / count if count else math.nan
