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
from m3node.detectors.contrast.grid import MOST_PLACES, ContrastGrid, make_grid
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource

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


@pytest.mark.parametrize(
    ("spacing", "blocks"),
    [
        ((2.0, 0.9, 0.9), (1, 2, 2)),
        ((0.5, 0.9, 0.9), (4, 1, 1)),
        ((2.0, 1.5, 1.5), (1, 2, 2)),
    ],
)
def test_a_liver_without_end_gets_larger_blocks_and_not_more_of_them(
    spacing: tuple[float, float, float], blocks: tuple[int, int, int]
) -> None:
    shape = (400, 200, 400)
    everywhere = VoxelMask(shape=shape, start=(0, 0, 0), data=np.broadcast_to(np.True_, shape))
    region = LiverRegion(everywhere, everywhere, LiverSource.EMBEDDED, reference="", algorithm="")
    hu = np.broadcast_to(np.int16(100), shape)
    grid = make_grid(CTVolume(hu=hu, geometry=axial_geometry(shape, spacing), sources=()), region)
    assert grid is not None
    assert grid.factors == blocks
    assert grid.hu.size <= MOST_PLACES
    assert (grid.hu == 100).all()


def test_depths_are_what_scipy_says(grid: ContrastGrid) -> None:
    solid = np.ones((4, 5, 6), dtype=np.bool_)
    for mask in (grid.hu > 100, grid.envelope, grid.envelope[:3, 50:60], ~solid):
        expected = ndimage.distance_transform_edt(mask, sampling=SPACING).astype(np.float32)
        np.testing.assert_array_equal(depth_inside(mask, SPACING), expected)
    assert np.isinf(depth_inside(solid, SPACING)).all()
