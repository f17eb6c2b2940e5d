"""2-D phantoms: single slices of the 3-D phantom's abdomen, drawn more widely; the same seed gives the same pixels.

The distribution is fixed and written down in ``docs/evaluation.md``: who changes a number here changes it there, and
trains the test model anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from m3node.evaluation import phantom_anatomy as anatomy
from m3node.evaluation.phantom_canvas import Canvas
from m3node.evaluation.phantom_texture import enlarged_plane, grain, halved
from m3node.evaluation.soft_shapes import Float32Array, SoftEllipsoid

SIDE = 512
"""Rows and columns of a slice."""

MIN_LIVER_MM2 = 1500.0
"""Heights with less liver are not drawn."""

_HEIGHTS_MM = (-82.0, 88.0)
_COUNT_SHARES = (1 / 3, 1 / 3, 2 / 9, 1 / 9)


@dataclass(frozen=True, slots=True, eq=False)
class SliceLesion:
    """A lesion on a 2-D phantom.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows, columns)
        Pixels at least half lesion, inside the liver.
    box : tuple of int
        Half-open pixel bounds (r0, c0, r1, c1) of the mask.
    diameter_mm : float
        Longest axis of the ellipse it was made from.
    delta_hu : float
        How much darker than the liver, positive.
    """

    mask: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]
    diameter_mm: float
    delta_hu: float


@dataclass(frozen=True, slots=True, eq=False)
class SlicePhantom:
    """One CT slice whose truth is known.

    Attributes
    ----------
    hu : ndarray of int16, shape (rows, columns)
        HU; rows go backwards, columns to the patient's left.
    spacing : tuple of float
        mm between rows, between columns.
    liver : ndarray of bool, same shape
        Liver with its vessels and lesions, without the gallbladder.
    lesions : tuple of SliceLesion
        Largest first; empty in a healthy phantom.
    """

    hu: npt.NDArray[np.int16]
    spacing: tuple[float, float]
    liver: npt.NDArray[np.bool_]
    lesions: tuple[SliceLesion, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SliceAnatomy:
    """A healthy slice before the scanner: lesions and noise can be drawn on it more than once.

    Attributes
    ----------
    canvas : Canvas
        One plane at half resolution, coordinates in mm of the standard body.
    depth : ndarray of float32, shape (1, rows, columns)
        Depth in mm below the liver's surface, on the canvas.
    scale : float
        mm of the patient to one mm of the standard body.
    spacing : tuple of float
        mm between the slice's rows, and its columns.
    liver_hu : float
        HU of the parenchyma.
    """

    canvas: Canvas
    depth: Float32Array
    scale: float
    spacing: tuple[float, float]
    liver_hu: float


def slice_phantom(seed: int) -> SlicePhantom:
    """Make a slice through the liver, in the portal venous phase.

    Parameters
    ----------
    seed : int
        Patient, height, lesions and noise follow from it.

    Returns
    -------
    SlicePhantom
        512×512, pixels of 0.6–1.0 mm, none to three lesions.
    """
    return phantom_and_twin(seed)[0]


def phantom_and_twin(seed: int) -> tuple[SlicePhantom, SlicePhantom]:
    """Make `slice_phantom` and the same slice with its lesions painted over: all else, noise included, is equal."""
    ground = draw_anatomies(np.random.default_rng([seed, 10]), heights=1)[0]
    lesion_rng = np.random.default_rng([seed, 11])
    counts = (draw_count(lesion_rng), 0)
    ill, healthy = (draw_slice(ground, count, lesion_rng, np.random.default_rng([seed, 12])) for count in counts)
    return ill, healthy


def draw_anatomies(rng: np.random.Generator, *, heights: int) -> list[SliceAnatomy]:
    """Draw one patient and paint some slices of it, at random heights through the liver."""
    patient = anatomy.Patient(
        scale=float(rng.uniform(0.85, 1.10)),
        liver_hu=float(rng.uniform(88.0, 124.0)),
        vessel_gain=float(rng.uniform(20.0, 60.0)),
        right_lobe=float(rng.uniform(0.86, 1.02)),
        left_lobe=float(rng.uniform(0.80, 1.14)),
        tilt=float(rng.uniform(0.60, 0.84)),
    )
    vessels = anatomy.vessels(patient, rng)
    pixel = float(rng.uniform(0.6, 1.0))
    # A field of view smaller than the body cuts it off; the body is not centred in it either.
    axes = [
        halved(
            np.asarray(
                ((np.arange(SIDE) - (SIDE - 1) / 2) * pixel + rng.normal(0.0, 8.0)) / patient.scale, dtype=np.float32
            )
        )
        for _ in range(2)
    ]
    slices: list[SliceAnatomy] = []
    while len(slices) < heights:
        z = np.array([rng.uniform(*_HEIGHTS_MM)], dtype=np.float32)
        canvas = Canvas.blank(z, axes[0], axes[1], anatomy.AIR)
        bladder = anatomy.gallbladder(patient)
        depth = np.minimum(anatomy.liver_depth(canvas, patient), -bladder.depth(*canvas.everywhere()))
        if np.count_nonzero(depth > 0) * (2 * pixel) ** 2 < MIN_LIVER_MM2:
            continue
        anatomy.paint_body(canvas, rng)
        anatomy.paint_organs(canvas, patient, rng)
        anatomy.paint_lungs_and_heart(canvas)
        canvas.paint_depth(depth, patient.liver_hu)
        canvas.paint(bladder, anatomy.BILE)
        canvas.paint_all(vessels, patient.liver_hu + patient.vessel_gain, within=anatomy.confined(depth))
        canvas.hu[...] += _shading(canvas.hu.shape, float(rng.uniform(0.0, 5.0)), rng)
        slices.append(
            SliceAnatomy(
                canvas=canvas,
                depth=depth,
                scale=patient.scale,
                spacing=(pixel, pixel),
                liver_hu=patient.liver_hu,
            )
        )
    return slices


def draw_count(rng: np.random.Generator) -> int:
    """Draw how many lesions a slice has."""
    return int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))


def draw_slice(
    ground: SliceAnatomy, count: int, lesion_rng: np.random.Generator, noise_rng: np.random.Generator
) -> SlicePhantom:
    """Draw lesions and noise on a healthy slice; fewer lesions where there is no room."""
    canvas = Canvas(hu=ground.canvas.hu.copy(), z=ground.canvas.z, y=ground.canvas.y, x=ground.canvas.x)
    inside = anatomy.confined(ground.depth)
    planted = _plant(ground, count, lesion_rng)
    for shape, delta in planted:
        # Darker than what was there, so that shading goes on below it; its middle is flat, as the liver is.
        canvas.paint(shape, ground.liver_hu - delta, within=inside)
    plane = (SIDE, SIDE)
    liver = enlarged_plane(ground.depth[0], plane) > 0
    lesions: list[SliceLesion] = []
    for shape, delta in planted:
        weight = enlarged_plane(shape.weight(*canvas.everywhere())[0], plane)
        mask = (weight >= 0.5) & liver
        lesions.append(
            SliceLesion(
                mask=mask, box=_bounds(mask), diameter_mm=2 * max(shape.semi[1:]) * ground.scale, delta_hu=delta
            )
        )
    noise_hu = float(noise_rng.uniform(7.0, 15.0))
    hu = enlarged_plane(canvas.hu[0], plane) + noise_hu * grain(plane, noise_rng)
    return SlicePhantom(
        hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16),
        spacing=ground.spacing,
        liver=liver,
        lesions=tuple(lesions),
    )


def _plant(ground: SliceAnatomy, count: int, rng: np.random.Generator) -> list[tuple[SoftEllipsoid, float]]:
    """Choose the lesions, the largest placed first so that it finds room."""
    planted: list[tuple[SoftEllipsoid, float]] = []
    # Evenly in the logarithm: small ones are the commoner.
    diameters = np.exp(rng.uniform(math.log(8.0), math.log(40.0), size=count))
    for diameter in sorted((float(value) / ground.scale for value in diameters), reverse=True):
        flat = np.flatnonzero(ground.depth > 0.4 * diameter)
        for _ in range(60 if flat.size else 0):
            _, r, c = np.unravel_index(int(rng.choice(flat)), ground.depth.shape)
            centre = (float(ground.canvas.z[0]), float(ground.canvas.y[r]), float(ground.canvas.x[c]))
            if all(math.dist(centre, other.centre) > diameter / 2 + max(other.semi) + 8.0 for other, _delta in planted):
                break
        else:
            continue
        half = diameter / 2
        shape = SoftEllipsoid(
            centre,
            (half, half * float(rng.uniform(0.75, 1.0)), half),
            turn=float(rng.uniform(0.0, math.pi)),
            edge=float(rng.uniform(2.0, 4.0)),
            bump=float(rng.uniform(0.0, 0.1)),
            bump_turn=float(rng.uniform(0.0, math.tau)),
        )
        planted.append((shape, float(rng.uniform(30.0, 65.0))))
    return planted


def _shading(shape: tuple[int, ...], strength_hu: float, rng: np.random.Generator) -> Float32Array:
    """Draw slow changes of brightness, as beam hardening leaves them."""
    coarse = rng.standard_normal((1, 8, 8), dtype=np.float32)
    smooth = ndimage.zoom(coarse, (1, shape[1] / 8, shape[2] / 8), order=3, mode="nearest", grid_mode=True)
    return np.asarray(strength_hu * smooth / max(1e-6, float(smooth.std())), dtype=np.float32)


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
