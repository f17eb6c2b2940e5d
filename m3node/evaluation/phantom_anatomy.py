"""The phantom's organs: an upper abdomen in the portal venous phase, patient's right at negative x.

Millimetres about the body's axis: z upwards from the middle of the liver, y backwards, x to the patient's left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from m3node.evaluation.phantom_canvas import Canvas
from m3node.evaluation.soft_shapes import Float32Array, SoftEllipsoid, Vector, ramp

AIR, LUNG, FAT, MUSCLE, BILE = -1000.0, -830.0, -100.0, 58.0, 8.0
_WALL = (104.0, 159.0)
_CAVITY = (91.0, 144.0)


@dataclass(frozen=True, slots=True)
class Patient:
    """What differs from one phantom to the next.

    Attributes
    ----------
    scale : float
        Size of the body against the standard one.
    liver_hu, vessel_gain : float
        HU of the parenchyma, and how much brighter its vessels are.
    right_lobe, left_lobe : float
        Size of the lobes against the standard ones.
    tilt : float
        Radians by which the liver's lower surface rises to the left.
    """

    scale: float
    liver_hu: float
    vessel_gain: float
    right_lobe: float
    left_lobe: float
    tilt: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Patient:
        """Draw a patient."""
        return cls(
            scale=float(rng.uniform(0.94, 1.04)),
            liver_hu=float(rng.uniform(97.0, 113.0)),
            vessel_gain=float(rng.uniform(40.0, 60.0)),
            right_lobe=float(rng.uniform(0.88, 1.0)),
            left_lobe=float(rng.uniform(0.85, 1.12)),
            tilt=float(rng.uniform(0.62, 0.82)),
        )


def paint_body(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint skin to peritoneum: fat ring, muscle wall, visceral fat, spine, ribs."""
    z, y, x = canvas.everywhere()
    canvas.paint_depth(_cylinder(y, x, 121.0, 178.0) + 0.0 * z, FAT)
    canvas.paint_depth(_cylinder(y, x, *_WALL) + 0.0 * z, MUSCLE)
    canvas.paint_depth(_cylinder(y, x, *_CAVITY) + 0.0 * z, FAT)
    for side in (-1.0, 1.0):
        canvas.paint_depth(_cylinder(y - 84.0, x - side * 38.0, 21.0, 27.0) + 0.0 * z, MUSCLE)
        canvas.paint_depth(_cylinder(y - 62.0, x - side * 34.0, 13.0, 11.0) + 0.0 * z, MUSCLE)
    canvas.paint_depth(_cylinder(y - 66.0, x, 17.0, 22.0) + 0.0 * z, 420.0)
    canvas.paint_depth(_cylinder(y - 66.0, x, 14.0, 19.0) + 0.0 * z, 190.0)
    canvas.paint_depth(_cylinder(y - 96.0, x, 12.0, 9.0) + 0.0 * z, 330.0)
    canvas.paint_depth(_cylinder(y - 89.0, x, 7.0, 9.0) + 0.0 * z, 25.0)
    low, high = float(canvas.z[0]) - 30.0, float(canvas.z[-1]) + 60.0
    start = float(rng.uniform(0.0, 26.0))
    for top in np.arange(low + start, high, 26.0):
        for side in (-1.0, 1.0):
            for angle in np.arange(0.12, 2.5, 0.03):
                centre = (
                    float(top) - 22.0 * float(angle),
                    97.0 * math.cos(angle),
                    side * 151.0 * math.sin(angle),
                )
                canvas.paint(SoftEllipsoid(centre, (6.5, 4.5, 4.5)), 430.0)


def diaphragm(canvas: Canvas) -> Float32Array:
    """Height in mm of the diaphragm over each (row, column), shape (1, rows, columns)."""
    _, y, x = canvas.everywhere()
    right = 72.0 * np.exp(-(((x + 68.0) / 84.0) ** 2) - ((y - 2.0) / 84.0) ** 4)
    left = 66.0 * np.exp(-(((x - 72.0) / 80.0) ** 2) - ((y + 4.0) / 84.0) ** 4)
    return np.asarray(18.0 + np.maximum(right, left), dtype=np.float32)


def liver_depth(canvas: Canvas, patient: Patient) -> Float32Array:
    """Depth in mm below the liver's surface on the whole grid: two lobes between diaphragm, wall and viscera."""
    z, y, x = canvas.everywhere()
    right = SoftEllipsoid((2.0, 4.0, -72.0), tuple_scaled((86.0, 79.0, 72.0), patient.right_lobe))
    left = SoftEllipsoid((34.0, -38.0, 6.0), tuple_scaled((40.0, 36.0, 76.0), patient.left_lobe), turn=0.12)
    lobes = _smooth_max(right.depth(z, y, x), left.depth(z, y, x), 8.0)
    below = (z - 12.0) * math.cos(patient.tilt) - (x + 22.0) * math.sin(patient.tilt) + 0.16 * (y + 8.0) + 42.0
    wall = _cylinder(y, x, _CAVITY[0] - 2.0, _CAVITY[1] - 2.0)
    dome = (diaphragm(canvas) - 4.0 - z) * 0.8
    spine = np.hypot((y - 72.0) * 0.8, x) - 46.0
    # The falciform ligament's fissure: a wedge of fat that opens forwards between the lobes.
    fissure = np.abs(x + 14.0 + 0.1 * y) - np.clip((-y - 34.0) * 0.09, -4.0, 3.2) - np.clip((z - 35.0) * 0.2, 0, None)
    depth = lobes
    for surface in (below, wall + 0.0 * z, dome, spine + 0.0 * z):
        depth = _smooth_min(depth, np.asarray(surface, dtype=np.float32), 5.0)
    return np.asarray(np.minimum(depth, np.maximum(fissure, z - 52.0)), dtype=np.float32)


def gallbladder(patient: Patient) -> SoftEllipsoid:
    """The gallbladder, half sunk into its fossa under the right lobe."""
    height = -42.0 + 10.0 * (patient.tilt - 0.7) * 10.0
    return SoftEllipsoid((height, -42.0, -42.0), (25.0, 19.0, 15.0), turn=0.4)


def paint_lungs_and_heart(canvas: Canvas) -> None:
    """Paint what lies above the diaphragm."""
    z, y, x = canvas.everywhere()
    above = z - diaphragm(canvas)
    inside = _cylinder(y, x, _CAVITY[0] - 1.0, _CAVITY[1] - 1.0)
    spine = np.hypot(y - 76.0, x) - 40.0
    canvas.paint_depth(np.minimum(np.minimum(above, inside), spine), LUNG)
    canvas.paint(SoftEllipsoid((118.0, -38.0, 22.0), (62.0, 48.0, 58.0), edge=2.0), FAT)
    canvas.paint(SoftEllipsoid((120.0, -38.0, 22.0), (56.0, 43.0, 52.0), edge=2.0), 140.0)


def paint_organs(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint spleen, stomach, kidneys, pancreas, great vessels and bowel."""
    z, y, x = canvas.everywhere()
    for _ in range(26):
        centre = (float(rng.uniform(-150.0, -35.0)), float(rng.uniform(-70.0, 15.0)), float(rng.uniform(-95.0, 110.0)))
        semi = (float(rng.uniform(12.0, 24.0)), float(rng.uniform(10.0, 16.0)), float(rng.uniform(12.0, 26.0)))
        loop = SoftEllipsoid(centre, semi, turn=float(rng.uniform(0.0, math.pi)))
        canvas.paint(loop, float(rng.uniform(30.0, 75.0)))
        if rng.random() < 0.35:
            gas = SoftEllipsoid((centre[0], centre[1] - 3.0, centre[2]), tuple_scaled(semi, 0.5))
            canvas.paint(gas, -850.0)
    canvas.paint(SoftEllipsoid((22.0, 38.0, 98.0), (52.0, 42.0, 30.0), turn=0.5), 118.0)
    stomach = SoftEllipsoid((22.0, -18.0, 66.0), (44.0, 36.0, 40.0), turn=0.3)
    canvas.paint(stomach, 75.0)
    inner = SoftEllipsoid(stomach.centre, tuple_scaled(stomach.semi, 0.9), turn=0.3)
    canvas.paint(inner, 18.0)
    level = np.minimum(inner.depth(z, y, x), -34.0 - y + 0.0 * z)
    canvas.paint_depth(level, -950.0)
    canvas.paint(SoftEllipsoid((-14.0, 8.0, 20.0), (13.0, 13.0, 52.0), turn=-0.15, bump=0.05), 92.0)
    for side, height in ((-1.0, -74.0), (1.0, -52.0)):
        centre = (height, 45.0, side * 62.0)
        canvas.paint(SoftEllipsoid(centre, (54.0, 27.0, 25.0), turn=-side * 0.4), 175.0)
        canvas.paint(SoftEllipsoid(centre, (40.0, 15.0, 13.0), turn=-side * 0.4), 125.0)
        canvas.paint(SoftEllipsoid((height, 43.0, side * 52.0), (20.0, 9.0, 13.0)), -40.0)
    canvas.paint_depth(_cylinder(y - 38.0, x - 12.0, 10.5, 10.5) + 0.0 * z, 155.0)
    canvas.paint_depth(_cylinder(y - 32.0, x + 20.0, 10.0, 12.5) + 0.0 * z, patient.liver_hu + 35.0)


def vessels(patient: Patient, rng: np.random.Generator) -> list[SoftEllipsoid]:
    """Portal and hepatic veins as chains of balls."""
    balls: list[SoftEllipsoid] = []
    porta: Vector = (-6.0, -2.0, -30.0)
    confluence: Vector = (64.0, 24.0, -22.0)
    for end in ((4.0, 22.0, -110.0), (26.0, -12.0, -105.0), (-28.0, 20.0, -100.0), (34.0, -38.0, 30.0)):
        balls += _branches(porta, _jittered(end, 10.0, rng), 7.0, rng, generations=3)
    for end in ((18.0, 20.0, -118.0), (16.0, -36.0, -84.0), (42.0, -40.0, 22.0)):
        balls += _branches(confluence, _jittered(end, 10.0, rng), 6.0, rng, generations=3)
    return balls


def tuple_scaled(vector: Vector, factor: float) -> Vector:
    """Scale a vector."""
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


def _branches(
    start: Vector, end: Vector, radius: float, rng: np.random.Generator, *, generations: int
) -> list[SoftEllipsoid]:
    a, b = np.asarray(start), np.asarray(end)
    length = float(np.linalg.norm(b - a))
    bend = (a + b) / 2.0 + rng.normal(0.0, 0.10 * length, 3)
    count = max(2, int(length / 1.5))
    balls: list[SoftEllipsoid] = []
    for t in np.linspace(0.0, 1.0, count):
        point = (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b
        size = radius * (1.0 - 0.5 * float(t))
        balls.append(SoftEllipsoid((float(point[0]), float(point[1]), float(point[2])), (size, size, size)))
    if generations > 1:
        for at in (0.4, 0.6, 0.8):
            root = balls[int(at * (count - 1))].centre
            direction = (b - a) / length + rng.normal(0.0, 0.8, 3)
            tip = np.asarray(root) + direction / np.linalg.norm(direction) * length * 0.45
            child = (float(tip[0]), float(tip[1]), float(tip[2]))
            balls += _branches(root, child, radius * 0.6, rng, generations=generations - 1)
    return balls


def _jittered(point: Vector, spread: float, rng: np.random.Generator) -> Vector:
    moved = np.asarray(point) + rng.normal(0.0, spread, 3)
    return float(moved[0]), float(moved[1]), float(moved[2])


def _cylinder(y: Float32Array, x: Float32Array, semi_y: float, semi_x: float) -> Float32Array:
    radius = np.sqrt((y / semi_y) ** 2 + (x / semi_x) ** 2)
    return np.asarray((1.0 - radius) * min(semi_y, semi_x), dtype=np.float32)


def _smooth_min(a: Float32Array, b: Float32Array, width: float) -> Float32Array:
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0.0, 1.0)
    return np.asarray(b + (a - b) * h - width * h * (1.0 - h), dtype=np.float32)


def _smooth_max(a: Float32Array, b: Float32Array, width: float) -> Float32Array:
    return -_smooth_min(-a, -b, width)


def confined(depth: Float32Array) -> Float32Array:
    """Weights of an organ, for painting inside it only."""
    return ramp(depth, 1.5)
