"""The envelope holds the parenchyma, what lies near it and what its hull spans, and not much more."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.liver.envelope import GRID_MM, convex, make_envelope
from m3node.settings import LiverSettings

SETTINGS = LiverSettings()


def ball(geometry: PatientGeometry, centre: tuple[float, float, float], radius_mm: float) -> BoolArray:
    grid = np.ogrid[tuple(slice(0, n) for n in geometry.shape)]
    square = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, centre, geometry.spacing, strict=True))
    return np.asarray(square <= radius_mm**2)


@settings(max_examples=15, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.6, 6.0)] * 3),
    centres=st.lists(st.tuples(*[st.floats(0.2, 0.8)] * 3), min_size=1, max_size=3),
    radius=st.floats(3.0, 25.0),
)
def test_everything_within_the_dilation_is_held(
    spacing: tuple[float, float, float], centres: list[tuple[float, float, float]], radius: float
) -> None:
    shape = tuple(max(3, int(60.0 / mm)) for mm in spacing)
    geometry = axial_geometry((shape[0], shape[1], shape[2]), spacing)
    mask = np.zeros(shape, dtype=bool)
    for where in centres:
        mask |= ball(geometry, (where[0] * shape[0], where[1] * shape[1], where[2] * shape[2]), radius)
        mask[tuple(int(w * n) for w, n in zip(where, shape, strict=True))] = True
    envelope = make_envelope(VoxelMask.from_full(mask), geometry, SETTINGS).full()
    near = ndimage.distance_transform_edt(~mask, sampling=spacing) <= SETTINGS.envelope_dilation_mm
    assert not np.any(near & ~envelope)


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (5.0, 0.8, 0.8), (3.0, 3.0, 3.0)])
def test_a_ball_grows_by_the_dilation_and_little_more(spacing: tuple[float, float, float]) -> None:
    shape = tuple(int(120.0 / mm) for mm in spacing)
    geometry = axial_geometry((shape[0], shape[1], shape[2]), spacing)
    mask = ball(geometry, (shape[0] / 2, shape[1] / 2, shape[2] / 2), 30.0)
    envelope = make_envelope(VoxelMask.from_full(mask), geometry, SETTINGS).full()
    farthest = ndimage.distance_transform_edt(~mask, sampling=spacing)[envelope].max()
    assert farthest <= SETTINGS.envelope_dilation_mm + 2 * GRID_MM + max(spacing)


def test_a_bite_out_of_the_border_is_inside() -> None:
    geometry = axial_geometry((40, 100, 100), (2.0, 1.0, 1.0))
    whole = ball(geometry, (20.0, 50.0, 50.0), 36.0)
    bite = ball(geometry, (20.0, 50.0, 18.0), 12.0) & whole
    envelope = make_envelope(VoxelMask.from_full(whole & ~bite), geometry, SETTINGS).full()
    assert bite.any()
    assert not np.any(bite & ~envelope)


def test_two_parts_on_a_slice_are_joined() -> None:
    geometry = axial_geometry((10, 80, 120), (3.0, 1.0, 1.0))
    mask = ball(geometry, (5.0, 40.0, 30.0), 12.0) | ball(geometry, (5.0, 40.0, 90.0), 12.0)
    envelope = make_envelope(VoxelMask.from_full(mask), geometry, SETTINGS)
    assert envelope.on_slice(5)[40, 60]


def test_it_is_clipped_where_the_volume_ends() -> None:
    geometry = axial_geometry((4, 30, 30), (2.0, 1.0, 1.0))
    envelope = make_envelope(VoxelMask.from_full(np.ones((4, 30, 30), dtype=bool)), geometry, SETTINGS)
    assert envelope.full().all()
    assert envelope.shape == (4, 30, 30)


def test_no_parenchyma_no_envelope() -> None:
    geometry = axial_geometry((4, 30, 30), (2.0, 1.0, 1.0))
    assert make_envelope(VoxelMask.empty((4, 30, 30)), geometry, SETTINGS).count == 0


@settings(max_examples=50, deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 24)), min_size=1, max_size=8))
def test_a_convex_plane_holds_its_points_and_every_pixel_between_two(points: list[tuple[int, int]]) -> None:
    plane = np.zeros((20, 25), dtype=bool)
    for r, c in points:
        plane[r, c] = True
    hull = convex(plane)
    assert not np.any(plane & ~hull)
    for (r0, c0), (r1, c1) in itertools.combinations(points, 2):
        steps = math.gcd(r1 - r0, c1 - c0) or 1
        between = [(r0 + k * (r1 - r0) // steps, c0 + k * (c1 - c0) // steps) for k in range(steps + 1)]
        assert all(hull[place] for place in between)
