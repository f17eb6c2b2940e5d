"""A 3-D CT phantom of an upper abdomen with known liver and lesions; the same seed gives the same voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3node.evaluation import phantom_anatomy as anatomy
from m3node.evaluation.ct_writer import axial_geometry
from m3node.evaluation.phantom_canvas import Canvas
from m3node.evaluation.phantom_texture import enlarged_plane, grain, halved
from m3node.evaluation.soft_shapes import Float32Array, SoftEllipsoid
from m3node.evaluation.truth import TrueLesion
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask

SMALL: dict[str, Any] = {"shape": (40, 128, 128), "spacing": (5.0, 3.0, 3.0)}
"""Arguments of a phantom that takes a fraction of a second."""

_DIAMETERS_MM = ((8.0, 11.0), (11.0, 16.0), (16.0, 22.0), (22.0, 30.0), (30.0, 40.0))
_MIDDLE_Z_MM = -8.0


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A CT volume whose truth is known.

    Attributes
    ----------
    hu : ndarray of int16, shape (slices, rows, columns)
        HU.
    geometry : PatientGeometry
        Head first supine, slices from the feet upwards.
    liver : VoxelMask
        Liver with its vessels and lesions, without the gallbladder.
    lesions : tuple of TrueLesion
        Smallest first; empty in a healthy phantom.
    """

    hu: npt.NDArray[np.int16]
    geometry: PatientGeometry
    liver: VoxelMask
    lesions: tuple[TrueLesion, ...]


def abdomen_phantom(
    *,
    healthy: bool = False,
    seed: int = 1,
    shape: tuple[int, int, int] = (90, 512, 512),
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.8),
) -> Phantom:
    """Make an abdomen in the portal venous phase, with five hypodense liver lesions or none.

    Parameters
    ----------
    healthy : bool
        No lesions; everything else is as with the same seed.
    seed : int
        Patient, lesions and noise follow from it.
    shape : tuple of int
        Slices, rows, columns. About 200 mm upwards and 380 mm across hold the whole liver and the body.
    spacing : tuple of float
        mm between slices, rows, columns.

    Returns
    -------
    Phantom
        Lesions of 8–40 mm, 30–60 HU darker than the liver, with a soft edge; correlated noise of 8–14 HU.
    """
    patient_rng, lesion_rng, noise_rng = (np.random.default_rng([seed, part]) for part in range(3))
    patient = anatomy.Patient.drawn(patient_rng)
    axes = tuple(
        _axis(n, step, middle, patient.scale)
        for n, step, middle in zip(shape, spacing, (_MIDDLE_Z_MM, 0.0, 0.0), strict=True)
    )
    # Organs are smooth, so they are painted at half resolution in plane where voxels are small.
    coarse = tuple(axis if index == 0 or spacing[index] > 1.2 else halved(axis) for index, axis in enumerate(axes))
    canvas = Canvas.blank(coarse[0], coarse[1], coarse[2], anatomy.AIR)
    anatomy.paint_body(canvas, patient_rng)
    anatomy.paint_organs(canvas, patient, patient_rng)
    anatomy.paint_lungs_and_heart(canvas)
    bladder = anatomy.gallbladder(patient)
    depth = np.minimum(anatomy.liver_depth(canvas, patient), -bladder.depth(*canvas.everywhere()))
    canvas.paint_depth(depth, patient.liver_hu)
    canvas.paint(bladder, anatomy.BILE)
    inside = anatomy.confined(depth)
    canvas.paint_all(anatomy.vessels(patient, patient_rng), patient.liver_hu + patient.vessel_gain, within=inside)
    planted = [] if healthy else _plant(canvas, depth, lesion_rng)
    for lesion, delta in planted:
        canvas.paint(lesion, patient.liver_hu - delta, within=inside)

    liver = VoxelMask.from_full(_enlarged(depth, (shape[1], shape[2])) > 0)
    geometry = axial_geometry(
        shape, spacing, origin=(-spacing[2] * (shape[2] - 1) / 2, -spacing[1] * (shape[1] - 1) / 2, 0.0)
    )
    true = tuple(
        _true_lesion(lesion, delta, axes=axes, liver=liver, geometry=geometry, scale=patient.scale)
        for lesion, delta in planted
    )
    hu = _with_noise(canvas.hu, (shape[1], shape[2]), noise_rng)
    return Phantom(hu=hu, geometry=geometry, liver=liver, lesions=true)


def _axis(count: int, step: float, middle: float, scale: float) -> Float32Array:
    millimetres = (np.arange(count) - (count - 1) / 2) * step + middle
    return np.asarray(millimetres / scale, dtype=np.float32)


def _plant(canvas: Canvas, depth: Float32Array, rng: np.random.Generator) -> list[tuple[SoftEllipsoid, float]]:
    """Choose the lesions, the largest placed first so that it finds room."""
    planted: list[tuple[SoftEllipsoid, float]] = []
    for smallest, largest in reversed(_DIAMETERS_MM):
        diameter = float(rng.uniform(smallest, largest))
        flat = np.flatnonzero(depth > 0.4 * diameter)
        for _ in range(200):
            k, r, c = np.unravel_index(int(rng.choice(flat)), depth.shape)
            centre = (float(canvas.z[k]), float(canvas.y[r]), float(canvas.x[c]))
            if all(
                math.dist(centre, other.centre) > diameter / 2 + max(other.semi) + 10.0 for other, _delta in planted
            ):
                break
        else:
            continue
        half = diameter / 2
        semi = (half * float(rng.uniform(0.8, 1.0)), half * float(rng.uniform(0.8, 1.0)), half)
        shape = SoftEllipsoid(
            centre,
            semi,
            turn=float(rng.uniform(0.0, math.pi)),
            edge=float(rng.uniform(2.0, 4.0)),
            bump=0.05,
            bump_turn=float(rng.uniform(0.0, math.tau)),
        )
        planted.append((shape, float(rng.uniform(30.0, 60.0))))
    return planted[::-1]


def _true_lesion(
    lesion: SoftEllipsoid,
    delta: float,
    *,
    axes: tuple[Float32Array, ...],
    liver: VoxelMask,
    geometry: PatientGeometry,
    scale: float,
) -> TrueLesion:
    reach = lesion.reach
    bounds = [
        (int(np.searchsorted(axis, c - r)), int(np.searchsorted(axis, c + r, side="right")))
        for axis, c, r in zip(axes, lesion.centre, reach, strict=True)
    ]
    block = tuple(slice(first, last) for first, last in bounds)
    z, y, x = axes[0][block[0], None, None], axes[1][None, block[1], None], axes[2][None, None, block[2]]
    inside = (lesion.weight(z, y, x) >= 0.5) & liver.within((bounds[0], bounds[1], bounds[2]))
    mask = VoxelMask(
        shape=liver.shape, start=(bounds[0][0], bounds[1][0], bounds[2][0]), data=np.asarray(inside)
    ).cropped()
    voxel = [float(np.interp(c, axis, np.arange(axis.size))) for axis, c in zip(axes, lesion.centre, strict=True)]
    centre = geometry.to_patient(voxel)
    return TrueLesion(
        mask=mask,
        diameter_mm=2 * max(lesion.semi) * scale,
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        delta_hu=delta,
    )


def _enlarged(values: Float32Array, plane: tuple[int, int]) -> Float32Array:
    """Bring a stack to full resolution in plane."""
    if values.shape[1:] == plane:
        return values
    return np.stack([enlarged_plane(plane_values, plane) for plane_values in values])


def _with_noise(smooth: Float32Array, plane: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Add noise that is correlated in plane, a little from slice to slice, and round to HU."""
    noise_hu = float(rng.uniform(8.0, 14.0))
    out = np.empty((smooth.shape[0], *plane), dtype=np.int16)
    before = grain(plane, rng)
    for k in range(smooth.shape[0]):
        now = grain(plane, rng)
        blended = (now + 0.35 * before) / math.hypot(1.0, 0.35)
        before = now
        hu = enlarged_plane(smooth[k], plane) + noise_hu * blended
        out[k] = np.clip(np.rint(hu), -1024, 3071)
    return out
