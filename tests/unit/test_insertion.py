"""An inserted lesion darkens liver, keeps its noise and touches nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from m3node.evaluation.ct_writer import axial_geometry
from m3node.evaluation.insertion import insert_lesion, random_insertions
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask

SHAPE = (30, 80, 80)
GEOMETRY: PatientGeometry = axial_geometry(SHAPE, (2.0, 1.0, 1.0))


@pytest.fixture
def liver() -> VoxelMask:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, 10:70, 10:70] = True
    return VoxelMask.from_full(mask)


@pytest.fixture
def hu(liver: VoxelMask) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.where(liver.full(), 100.0, -90.0) + rng.normal(0.0, 10.0, SHAPE)
    return np.rint(values).astype(np.int16)


def test_the_core_is_darker_by_delta_and_its_noise_is_the_same(hu: np.ndarray, liver: VoxelMask) -> None:
    changed, mask = insert_lesion(
        hu, GEOMETRY, liver, centre=(15, 40, 40), diameter_mm=24, delta_hu=40, edge_mm=3, rng=np.random.default_rng(1)
    )
    core = np.s_[14:17, 37:44, 37:44]
    assert np.array_equal(hu[core] - changed[core], np.full((3, 7, 7), 40))
    assert mask.full()[core].all()
    assert changed[core].std() == pytest.approx(hu[core].std())
    # The longest axis lies in the slice; the others are 80 to 100 % of it.
    assert mask.extent is not None
    size_mm = [(last - first) * step for (first, last), step in zip(mask.extent, GEOMETRY.spacing, strict=True)]
    assert 0.75 * 24 <= size_mm[0] <= 24
    assert 0.75 * 24 <= min(size_mm[1:]) <= max(size_mm[1:]) <= 1.1 * 24


def test_the_edge_is_smooth(hu: np.ndarray, liver: VoxelMask) -> None:
    changed, _ = insert_lesion(
        hu, GEOMETRY, liver, centre=(15, 40, 40), diameter_mm=24, delta_hu=60, edge_mm=4, rng=np.random.default_rng(1)
    )
    lowered = (hu - changed)[15, 40, 15:40]
    assert np.all(np.diff(lowered) >= 0)
    assert np.max(np.diff(lowered)) < 30


def test_at_the_border_nothing_outside_the_liver_changes(hu: np.ndarray, liver: VoxelMask) -> None:
    changed, mask = insert_lesion(
        hu, GEOMETRY, liver, centre=(15, 40, 12), diameter_mm=20, delta_hu=50, edge_mm=2, rng=np.random.default_rng(2)
    )
    outside = ~liver.full()
    assert np.array_equal(hu[outside], changed[outside])
    assert not (mask.full() & outside).any()
    assert mask.extent is not None
    assert mask.extent[2][0] <= 11


def test_random_insertions_repeat_by_seed_and_keep_apart(hu: np.ndarray, liver: VoxelMask) -> None:
    first, again = (random_insertions(hu, GEOMETRY, liver, seed=4, diameter_mm=(8, 16)) for _ in range(2))
    other = random_insertions(hu, GEOMETRY, liver, seed=5, diameter_mm=(8, 16))
    assert np.array_equal(first.hu, again.hu)
    assert not np.array_equal(first.hu, other.hu)
    assert len(first.lesions) == 3
    for one, other_one in itertools.combinations(first.lesions, 2):
        away = ndimage.distance_transform_edt(~one.mask.full(), sampling=GEOMETRY.spacing)
        assert away[other_one.mask.full()].min() > 5.0
    for lesion in first.lesions:
        assert 30 <= lesion.delta_hu <= 60
        assert 8 <= lesion.diameter_mm <= 16
        centre = GEOMETRY.to_voxel(lesion.centre_mm)
        assert lesion.mask.full()[tuple(np.rint(centre).astype(int))]


@pytest.mark.parametrize(("share", "cut"), [(0.0, 0), (1.0, 3)])
def test_a_share_of_random_insertions_is_cut_off_by_the_border(
    hu: np.ndarray, liver: VoxelMask, share: float, cut: int
) -> None:
    made = random_insertions(hu, GEOMETRY, liver, seed=4, diameter_mm=(10, 16), border_share=share)
    rows = [lesion.mask.extent[1:] for lesion in made.lesions if lesion.mask.extent is not None]
    at_border = [any(first <= 11 or last >= 69 for first, last in plane) for plane in rows]
    assert (len(at_border), sum(at_border)) == (3, cut)
