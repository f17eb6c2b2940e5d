"""Diameters, volume and place of shapes whose measures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.m3.measurements import axial_diameters, mean_outside, measure


def drawn(shape: tuple[int, int, int], inside: np.ndarray) -> VoxelMask:
    mask = np.zeros(shape, dtype=bool)
    mask[shape[0] // 2] = inside
    return VoxelMask.from_full(mask)


def test_a_row_of_voxels_is_as_long_as_its_voxels() -> None:
    inside = np.zeros((40, 40), dtype=bool)
    inside[10, 5:25] = True
    longest, across = axial_diameters(drawn((3, 40, 40), inside), 1, axial_geometry((3, 40, 40), (5.0, 0.5, 0.7)))
    assert longest.length_mm == pytest.approx(20 * 0.7)
    assert across.length_mm == pytest.approx(0.5)
    assert longest.start == (1.0, 10.0, 4.5)
    assert longest.end == (1.0, 10.0, 24.5)


@settings(max_examples=30, deadline=None)
@given(
    long=st.floats(12.0, 30.0),
    ratio=st.floats(0.5, 1.0),
    turn=st.floats(0.0, math.pi),
    spacing=st.tuples(st.floats(0.5, 1.2), st.floats(0.5, 1.2)),
)
def test_an_ellipses_diameters_are_its_axes_whatever_its_turn_and_the_voxels_shape(
    long: float, ratio: float, turn: float, spacing: tuple[float, float]
) -> None:
    y = (np.arange(90)[:, None] - 45.2) * spacing[0]
    x = (np.arange(90)[None, :] - 44.6) * spacing[1]
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    inside = (u / (long / 2)) ** 2 + (v / (ratio * long / 2)) ** 2 <= 1.0
    longest, across = axial_diameters(drawn((3, 90, 90), inside), 1, axial_geometry((3, 90, 90), (2.0, *spacing)))
    voxel = max(spacing)
    assert longest.length_mm == pytest.approx(long, abs=1.2 * voxel)
    assert across.length_mm == pytest.approx(ratio * long, abs=1.6 * voxel)
    for diameter in (longest, across):
        ends = [np.multiply(point, (2.0, *spacing)) for point in (diameter.start, diameter.end)]
        assert math.dist(*ends) == pytest.approx(diameter.length_mm)
    first, second = (np.subtract(diameter.end, diameter.start)[1:] * spacing for diameter in (longest, across))
    assert abs(float(first @ second)) == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    plane=arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))).filter(lambda plane: plane.any()),
    spacing=st.tuples(st.sampled_from((0.5, 0.7, 1.3)), st.sampled_from((0.5, 0.7, 1.3))),
)
def test_diameters_of_any_shape_are_what_trying_every_line_gives(
    plane: np.ndarray, spacing: tuple[float, float]
) -> None:
    longest, across = axial_diameters(
        drawn((3, *plane.shape), plane), 1, axial_geometry((3, *plane.shape), (2.0, *spacing))
    )
    sides = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
    outline = (np.argwhere(plane)[:, None] + sides).reshape(-1, 2) * spacing
    distances = np.linalg.norm(outline[:, None] - outline[None], axis=2)
    assert longest.length_mm == pytest.approx(distances.max())
    # Of longest diameters that are equally long any may be taken; the widths across each are tried.
    widths = [
        width_across(outline, outline[b] - outline[a])
        for a, b in np.argwhere(distances > distances.max() - 1e-9)
        if a < b
    ]
    assert min(abs(across.length_mm - width) for width in widths) < 1e-6


def width_across(points: np.ndarray, along: np.ndarray) -> float:
    """Longest chord of the points' convex hull at a right angle to ``along``, from every pair of points."""
    unit = along / np.linalg.norm(along)
    t, s = points @ unit, points @ (-unit[1], unit[0])
    widest = 0.0
    for at in t:
        # Every line between two points crosses the chord somewhere inside the hull, and some at its ends.
        first, second = (array.ravel() for array in np.meshgrid(np.arange(t.size), np.arange(t.size)))
        crossing = (t[first] < at - 1e-9) & (t[second] > at + 1e-9)
        share = (at - t[first[crossing]]) / (t[second[crossing]] - t[first[crossing]])
        heights = np.append(s[first[crossing]] * (1 - share) + s[second[crossing]] * share, s[np.abs(t - at) < 1e-9])
        widest = max(widest, float(np.ptp(heights)))
    return widest


def test_volume_hu_and_centroid_come_from_the_voxels() -> None:
    shape = (10, 20, 20)
    geometry = axial_geometry(shape, (2.0, 1.0, 0.5), origin=(-100.0, -50.0, 300.0))
    hu = np.full(shape, 100, dtype=np.int16)
    mask = np.zeros(shape, dtype=bool)
    mask[4:6, 8:12, 10:14] = True
    hu[4][mask[4]], hu[5][mask[5]] = 40, 60
    result = measure(
        CTVolume(hu=hu, geometry=geometry, sources=()), VoxelMask.from_full(mask), key_slice=4, hu_liver_mean=100.0
    )
    assert result.volume_ml == pytest.approx(32 / 1000)
    assert (result.hu_mean, result.hu_sd) == (pytest.approx(50.0), pytest.approx(10.0))
    assert result.centroid_mm == pytest.approx((-100.0 + 11.5 * 0.5, -50.0 + 9.5, 300.0 + 4.5 * 2.0))


def test_the_livers_mean_leaves_the_lesions_out() -> None:
    hu = np.full((4, 10, 10), 100, dtype=np.int16)
    hu[1:3, 2:5, 2:5] = 20
    volume = CTVolume(hu=hu, geometry=axial_geometry(hu.shape, (1.0, 1.0, 1.0)), sources=())
    liver = np.zeros(hu.shape, dtype=bool)
    liver[:, 1:9, 1:9] = True
    parenchyma = VoxelMask.from_full(liver)
    assert mean_outside(volume, parenchyma, [VoxelMask.from_full(hu == 20)]) == pytest.approx(100.0)
    assert mean_outside(volume, parenchyma, []) < 100.0
    assert math.isnan(mean_outside(volume, parenchyma, [parenchyma]))
