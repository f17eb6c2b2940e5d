"""What the embedded detector needs beside the volume, for each place of its grid."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from m3node.detectors.contrast.distance import depth_inside
from m3node.detectors.contrast.field import make_field
from m3node.detectors.contrast.foci import find_foci
from m3node.detectors.contrast.grid import ContrastGrid

SHAPE = (60, 180, 180)
SPACING = (2.0, 1.5, 1.5)
PLACES = 60 * 180 * 180


@pytest.fixture(scope="module")
def grid() -> ContrastGrid:
    """A ball of a liver in fat, with two rows of dark foci."""
    k, r, c = (np.arange(n) - n / 2 for n in SHAPE)
    far = (k[:, None, None] / 28) ** 2 + (r[None, :, None] / 85) ** 2 + (c[None, None, :] / 85) ** 2
    liver = far < 1
    hu = np.where(liver, 110.0, -90.0) + np.random.default_rng(4).normal(0.0, 12.0, SHAPE)
    for row in (60, 120):
        for column in range(40, 150, 15):
            hu[26:32, row : row + 7, column : column + 7] -= 60.0
    return ContrastGrid(
        hu=hu.astype(np.float32),
        envelope=liver,
        parenchyma=liver,
        start=(0, 0, 0),
        factors=(1, 1, 1),
        spacing=SPACING,
        shape=SHAPE,
    )


def bytes_a_place(work: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / PLACES
    finally:
        tracemalloc.stop()


def test_a_liver_of_many_foci_needs_few_bytes_a_place(grid: ContrastGrid) -> None:
    field = make_field(grid)
    assert field is not None
    assert len(find_foci(grid, field)) == 16
    comparing, finding = bytes_a_place(lambda: make_field(grid)), bytes_a_place(lambda: find_foci(grid, field))
    print(f"\ncomparing {comparing:.1f} bytes a place, finding {finding:.1f}")
    assert comparing < 32
    assert finding < 24


def test_depths_are_what_scipy_says(grid: ContrastGrid) -> None:
    solid = np.ones((4, 5, 6), dtype=np.bool_)
    for mask in (grid.hu > 100, grid.envelope, grid.envelope[:3, 50:60], ~solid):
        expected = ndimage.distance_transform_edt(mask, sampling=SPACING).astype(np.float32)
        np.testing.assert_array_equal(depth_inside(mask, SPACING), expected)
    assert np.isinf(depth_inside(solid, SPACING)).all()
