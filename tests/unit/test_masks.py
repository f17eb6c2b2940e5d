"""A lesion's voxels come from its detector, from HU inside its boxes, or from the boxes alone."""

from __future__ import annotations

import numpy as np
import pytest

from m3node.detectors.protocols import Box2D, Candidate, ScoreKind, SliceBox
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.m3.lesion import MaskOrigin
from m3node.m3.masks import every_slice, filled_between, inscribed_ellipsoid, lesion_mask

SHAPE = (20, 80, 80)
SPACING = (2.5, 1.0, 0.8)
CENTRE = (10, 40, 47)


def ball(radius_mm: float) -> np.ndarray:
    grid = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    square = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, CENTRE, SPACING, strict=True))
    return np.asarray(square <= radius_mm**2)


def liver_with(lesion: np.ndarray, hu: float) -> CTVolume:
    rng = np.random.default_rng(0)
    values = np.where(lesion, hu, 105.0) + rng.normal(0.0, 8.0, SHAPE)
    return CTVolume(hu=np.rint(values).astype(np.int16), geometry=axial_geometry(SHAPE, SPACING), sources=())


def boxed(lesion: np.ndarray, margin: float = 0.0, skip: tuple[int, ...] = ()) -> Candidate:
    boxes = []
    for k in np.flatnonzero(lesion.any(axis=(1, 2))).tolist():
        rows, columns = np.nonzero(lesion[k])
        box = Box2D(rows.min() - margin, columns.min() - margin, rows.max() + 1 + margin, columns.max() + 1 + margin)
        if k not in skip:
            boxes.append(SliceBox(slice_index=k, box=box, score=1.0, votes=1, views=1))
    return Candidate(boxes=tuple(boxes), score=1.0, score_kind=ScoreKind.TOKEN_PROBABILITY)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("margin", [0.0, 3.0])
@pytest.mark.parametrize("hu", [55.0, 150.0])
def test_a_lesion_that_stands_out_is_split_from_the_liver_in_its_boxes(hu: float, margin: float) -> None:
    truth = ball(12.0)
    mask, origin = lesion_mask(liver_with(truth, hu), boxed(truth, margin), 105.0)
    assert origin is MaskOrigin.HU_SPLIT
    assert dice(mask.full(), truth) > 0.98


def test_a_slice_without_a_box_is_filled_from_its_neighbours() -> None:
    truth = ball(12.0)
    mask, origin = lesion_mask(liver_with(truth, 55.0), boxed(truth, 1.0, skip=(9, 10)), 105.0)
    assert origin is MaskOrigin.HU_SPLIT
    assert dice(mask.full(), truth) > 0.98


def test_without_contrast_the_boxes_ellipsoid_serves() -> None:
    truth = ball(12.0)
    mask, origin = lesion_mask(liver_with(truth, 105.0), boxed(truth), 105.0)
    assert origin is MaskOrigin.ELLIPSOID
    assert dice(mask.full(), truth) > 0.95


def test_a_split_that_fills_little_of_the_boxes_has_followed_something_else_and_the_ellipsoid_serves() -> None:
    boxes = boxed(ball(12.0))
    mask, origin = lesion_mask(liver_with(ball(8.0), 55.0), boxes, 105.0)
    assert origin is MaskOrigin.HU_SPLIT
    assert dice(mask.full(), ball(8.0)) > 0.98
    mask, origin = lesion_mask(liver_with(ball(6.0), 55.0), boxes, 105.0)
    assert origin is MaskOrigin.ELLIPSOID
    assert dice(mask.full(), ball(12.0)) > 0.95


def test_liver_in_the_middle_of_a_dark_rim_is_not_taken_for_the_lesion() -> None:
    rim = ball(12.0) & ~ball(8.0)
    mask, origin = lesion_mask(liver_with(rim, 55.0), boxed(rim), 105.0)
    assert origin is MaskOrigin.ELLIPSOID
    assert dice(mask.full(), ball(12.0)) > 0.95


def test_fat_in_a_boxs_corner_is_not_taken_for_the_lesion() -> None:
    truth = ball(12.0)
    volume = liver_with(truth, 60.0)
    hu = volume.hu.copy()
    hu[:, :33, :] = -100
    with_fat = CTVolume(hu=hu, geometry=volume.geometry, sources=())
    truth[:, :33] = False
    mask, _ = lesion_mask(with_fat, boxed(ball(12.0)), 105.0)
    assert not mask.full()[:, :31].any()
    assert dice(mask.full(), truth) > 0.98


def test_a_detectors_own_voxels_are_kept_and_its_skipped_slices_filled() -> None:
    truth = ball(12.0)
    skipped = truth.copy()
    skipped[10] = False
    candidate = boxed(truth)
    own = Candidate(boxes=candidate.boxes, score=1.0, score_kind=ScoreKind.CONTRAST, mask=VoxelMask.from_full(skipped))
    mask, origin = lesion_mask(liver_with(truth, 60.0), own, 105.0)
    assert origin is MaskOrigin.DETECTOR
    others = np.arange(SHAPE[0]) != 10
    assert np.array_equal(mask.full()[others], truth[others])
    assert dice(mask.full()[10], truth[10]) > 0.98


def test_equal_boxes_hold_an_ellipsoid_that_touches_their_sides() -> None:
    boxes = [(k, Box2D(10, 20, 30, 50)) for k in range(5, 14)]
    mask = inscribed_ellipsoid(boxes, SHAPE)
    assert mask.extent == ((5, 14), (10, 30), (20, 50))
    assert mask.count == pytest.approx(np.pi / 6 * 9 * 20 * 30, rel=0.05)
    areas = np.count_nonzero(mask.full(), axis=(1, 2))
    assert areas[9] > areas[6] > areas[5] > 0


def test_a_box_smaller_than_a_voxel_still_has_a_voxel() -> None:
    mask = inscribed_ellipsoid([(3, Box2D(4.2, 4.2, 4.4, 4.4))], SHAPE)
    assert mask.extent == ((3, 4), (4, 5), (4, 5))


def test_missing_slices_get_interpolated_boxes() -> None:
    boxes = [SliceBox(k, Box2D(k, 0, k + 10, 10), 1.0, 1, 1) for k in (2, 6)]
    assert [(k, box.r0) for k, box in every_slice(boxes)] == [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]


def test_a_mask_without_gaps_is_left_as_it_is() -> None:
    mask = VoxelMask.from_full(ball(9.0))
    assert filled_between(mask) is mask
