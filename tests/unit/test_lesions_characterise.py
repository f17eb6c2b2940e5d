"""Candidates become numbered lesions that share no voxel."""

from __future__ import annotations

import numpy as np
import pytest

from m3node.detectors.protocols import Box2D, Candidate, Detection, ScoreKind, SliceBox
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.lesion import MaskOrigin
from m3node.m3.lesions import characterise
from m3node.settings import M3Settings

SHAPE = (10, 60, 60)


@pytest.fixture
def volume() -> CTVolume:
    return CTVolume(hu=np.full(SHAPE, 100, dtype=np.int16), geometry=axial_geometry(SHAPE, (2.0, 1.0, 1.0)), sources=())


@pytest.fixture
def region() -> LiverRegion:
    mask = VoxelMask.from_full(np.ones(SHAPE, dtype=bool))
    return LiverRegion(parenchyma=mask, envelope=mask, source=LiverSource.LABEL_MAP, reference="", algorithm="")


def candidate(
    k: tuple[int, int], r: tuple[int, int], c: tuple[int, int], score: float, *, own: bool = True
) -> Candidate:
    full = np.zeros(SHAPE, dtype=bool)
    full[k[0] : k[1], r[0] : r[1], c[0] : c[1]] = True
    return Candidate(
        boxes=tuple(SliceBox(i, Box2D(r[0], c[0], r[1], c[1]), score, votes=2, views=3) for i in range(*k)),
        score=score,
        score_kind=ScoreKind.CONTRAST,
        mask=VoxelMask.from_full(full) if own else None,
    )


def found(*candidates: Candidate) -> Detection:
    return Detection(candidates=candidates, views_total=3, views_read=3)


def test_lesions_are_numbered_by_score(volume: CTVolume, region: LiverRegion) -> None:
    lesions = characterise(
        volume,
        region,
        found(candidate((2, 6), (5, 15), (5, 15), 0.2), candidate((2, 6), (30, 40), (30, 45), 0.9)),
        M3Settings(),
    )
    assert [(lesion.number, lesion.score) for lesion in lesions] == [(1, 0.9), (2, 0.2)]
    assert (lesions[0].votes, lesions[0].views) == (8, 12)
    assert lesions[0].measurements.longest.length_mm == pytest.approx(np.hypot(10, 15), abs=1.1)


def test_candidates_whose_voxels_overlap_are_one_lesion(volume: CTVolume, region: LiverRegion) -> None:
    (lesion,) = characterise(
        volume,
        region,
        found(candidate((2, 6), (5, 15), (5, 15), 0.5), candidate((4, 8), (8, 20), (5, 15), 0.7)),
        M3Settings(),
    )
    assert lesion.mask.extent == ((2, 8), (5, 20), (5, 15))
    assert lesion.score == 0.7
    assert [box.slice_index for box in lesion.boxes] == list(range(2, 8))
    assert lesion.boxes[2].box == Box2D(5, 5, 20, 15)
    assert lesion.key_slice == 4


@pytest.mark.parametrize("estimated_score", [0.7, 0.3])
def test_a_lesion_partly_estimated_is_estimated(volume: CTVolume, region: LiverRegion, estimated_score: float) -> None:
    (lesion,) = characterise(
        volume,
        region,
        found(
            candidate((2, 6), (5, 25), (5, 25), 0.5), candidate((2, 6), (8, 22), (8, 22), estimated_score, own=False)
        ),
        M3Settings(),
    )
    assert lesion.mask_origin is MaskOrigin.ELLIPSOID


def test_lesions_that_only_touch_stay_two_and_share_no_voxel(volume: CTVolume, region: LiverRegion) -> None:
    lesions = characterise(
        volume,
        region,
        found(candidate((2, 6), (5, 20), (5, 25), 0.5), candidate((2, 6), (19, 35), (5, 25), 0.7)),
        M3Settings(),
    )
    assert len(lesions) == 2
    assert not (lesions[0].mask.full() & lesions[1].mask.full()).any()
    assert lesions[1].mask.extent == ((2, 6), (5, 19), (5, 25))


def test_what_is_smaller_than_the_setting_is_dropped(volume: CTVolume, region: LiverRegion) -> None:
    small, flat = candidate((2, 6), (5, 8), (5, 8), 0.9), candidate((8, 9), (30, 40), (30, 40), 0.9)
    assert characterise(volume, region, found(small, flat), M3Settings(min_diameter_mm=5.0)) == ()
    assert len(characterise(volume, region, found(small, flat), M3Settings(min_diameter_mm=3.5))) == 2


def test_the_key_box_encloses_the_mask_on_the_key_slice(volume: CTVolume, region: LiverRegion) -> None:
    wide = candidate((2, 6), (5, 20), (5, 25), 0.5)
    narrow_boxes = tuple(SliceBox(i, Box2D(8, 8, 12, 12), 0.5, 1, 3) for i in (2, 5))
    (lesion,) = characterise(
        volume,
        region,
        found(Candidate(boxes=narrow_boxes, score=0.5, score_kind=ScoreKind.CONTRAST, mask=wide.mask)),
        M3Settings(),
    )
    assert lesion.key_box.slice_index == lesion.key_slice == 2
    assert lesion.key_box.box == Box2D(5, 5, 20, 25)


def test_a_key_slice_without_a_box_takes_the_masks_own_with_the_votes_of_the_nearest(
    volume: CTVolume, region: LiverRegion
) -> None:
    full = np.zeros(SHAPE, dtype=bool)
    full[2:6, 8:12, 8:12] = True
    full[4, 5:20, 5:25] = True
    boxes = (SliceBox(2, Box2D(8, 8, 12, 12), 0.9, 3, 3), SliceBox(5, Box2D(0, 0, 40, 40), 0.5, 1, 3))
    made = Candidate(boxes=boxes, score=0.9, score_kind=ScoreKind.CONTRAST, mask=VoxelMask.from_full(full))
    (lesion,) = characterise(volume, region, found(made), M3Settings())
    assert lesion.key_slice == 4
    assert lesion.key_box == SliceBox(4, Box2D(5, 5, 20, 25), 0.5, 1, 3)
