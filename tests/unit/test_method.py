"""The method makes any detector of boxes on crops a detector of 3-D lesions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from m3node.detectors.protocols import (
    AttentionGrid,
    Box2D,
    CropDetector,
    Detector,
    DetectorIdentity,
    ScoreKind,
    View,
    ViewBox,
    ViewResult,
)
from m3node.errors import InferenceError
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.lesion import MaskOrigin
from m3node.m3.lesions import characterise
from m3node.m3.method import M3Method
from m3node.m3.views import make_view
from m3node.settings import M3Settings

SHAPE = (16, 120, 120)
SPACING = (3.0, 1.0, 1.0)
SETTINGS = M3Settings()


class BoxOnly:
    """Boxes around what is darker than 80 HU, without voxels, as a language model would give them."""

    identity = DetectorIdentity(name="box-only", version="1", description="A test.", parameters=(("a", "b"),))
    score_kind = ScoreKind.TOKEN_PROBABILITY

    def __init__(self, answer: Callable[[View, ViewResult], ViewResult] = lambda _view, result: result) -> None:
        self.answer = answer
        self.seen: list[tuple[int, float]] = []

    def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        for view in views:
            self.seen.append((view.slice_index, view.padding))
            yield self.answer(view, ViewResult(boxes=dark_boxes(view)))


def dark_boxes(view: View) -> tuple[ViewBox, ...]:
    labels, _ = ndimage.label((view.hu < 80) & (view.hu > 0))
    return tuple(
        ViewBox(box=Box2D(rows.start, columns.start, rows.stop, columns.stop), score=0.6)
        for rows, columns in ndimage.find_objects(labels)
    )


def voxels_in(view: View, box: Box2D) -> np.ndarray:
    """The dark voxels of a box, on the view's grid."""
    mask = np.zeros(view.hu.shape, dtype=bool)
    block = slice(int(box.r0), int(box.r1)), slice(int(box.c0), int(box.c1))
    mask[block] = view.hu[block] == 60
    return mask


@pytest.fixture
def volume() -> CTVolume:
    """A liver of 105 HU in fat with two dark balls of 20 and 14 mm; and one outside of it."""
    hu = np.full(SHAPE, -90, dtype=np.int16)
    hu[2:14, 20:100, 20:100] = 105
    k, r, c = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for (ck, cr, cc), radius in (((7, 45, 45), 10.0), ((8, 75, 70), 7.0), ((7, 60, 112), 6.0)):
        hu[((k - ck) * 3.0) ** 2 + (r - cr) ** 2 + (c - cc) ** 2 <= radius**2] = 60
    return CTVolume(hu=hu, geometry=axial_geometry(SHAPE, SPACING), sources=())


@pytest.fixture
def region() -> LiverRegion:
    liver = np.zeros(SHAPE, dtype=bool)
    liver[2:14, 20:100, 20:100] = True
    mask = VoxelMask.from_full(liver)
    return LiverRegion(parenchyma=mask, envelope=mask, source=LiverSource.LABEL_MAP, reference="", algorithm="test")


def quiet(stage: str, done: int, total: int) -> None:
    del stage, done, total


def test_the_method_is_a_detector_and_its_parts_are_crop_detectors() -> None:
    assert isinstance(BoxOnly(), CropDetector)
    assert isinstance(M3Method(BoxOnly(), SETTINGS), Detector)


def test_boxes_become_lesions_with_votes_and_estimated_voxels(volume: CTVolume, region: LiverRegion) -> None:
    detection = M3Method(BoxOnly(), SETTINGS).find(volume, region, quiet)
    lesions = characterise(volume, region, detection, SETTINGS)
    assert len(lesions) == 2
    assert [lesion.number for lesion in lesions] == [1, 2]
    by_size = sorted(lesions, key=lambda lesion: -lesion.measurements.volume_ml)
    for lesion, diameter, slice_index in zip(by_size, (20.0, 14.0), (7, 8), strict=True):
        assert lesion.mask_origin is MaskOrigin.HU_SPLIT
        assert lesion.key_slice == slice_index
        assert lesion.measurements.longest.length_mm == pytest.approx(diameter, abs=1.5)
        assert lesion.measurements.hu_mean == pytest.approx(60.0, abs=4.0)
        assert lesion.measurements.hu_liver_mean == pytest.approx(105.0, abs=0.5)
        assert lesion.key_box.views == lesion.key_box.votes == 3
        assert lesion.score == pytest.approx(0.6)
    assert detection.views_total == detection.views_read
    assert detection.failures == ()


def test_a_box_outside_the_envelope_is_no_candidate(volume: CTVolume, region: LiverRegion) -> None:
    seen: list[float] = []

    def noted(view: View, result: ViewResult) -> ViewResult:
        seen.extend(view.origin[1] + found.box.c1 for found in result.boxes)
        return result

    detection = M3Method(BoxOnly(noted), SETTINGS).find(volume, region, quiet)
    assert max(seen) > 106  # the ball beside the liver is on the crops, and was answered
    assert len(detection.candidates) == 2
    assert all(box.box.c1 <= 100 for candidate in detection.candidates for box in candidate.boxes)


def test_every_slice_is_shown_in_every_padding_and_lesions_ends_once_more(
    volume: CTVolume, region: LiverRegion
) -> None:
    detector = BoxOnly()
    detection = M3Method(detector, SETTINGS).find(volume, region, quiet)
    first = detector.seen[: 12 * 3]
    assert first == [(k, padding) for k in range(2, 14) for padding in SETTINGS.paddings]
    # The balls are seen on slices 4 to 10 and 6 to 10; the slices next to those are looked at again.
    assert sorted(detector.seen[12 * 3 :]) == [(3, 0.0), (5, 0.0), (11, 0.0), (11, 0.0)]
    assert detection.views_total == len(detector.seen)


def test_a_slice_missed_at_first_is_found_by_the_second_look(volume: CTVolume, region: LiverRegion) -> None:
    def shy(view: View, result: ViewResult) -> ViewResult:
        return ViewResult(boxes=()) if view.slice_index == 9 and view.padding > 0 else result

    detection = M3Method(BoxOnly(shy), SETTINGS).find(volume, region, quiet)
    assert len(detection.candidates) == 2
    assert all(9 in [box.slice_index for box in candidate.boxes] for candidate in detection.candidates)


def test_views_that_could_not_be_read_are_counted_and_named(volume: CTVolume, region: LiverRegion) -> None:
    def mute(view: View, result: ViewResult) -> ViewResult:
        return ViewResult(boxes=(), failure="no JSON in the answer") if view.padding == 0.2 else result

    detection = M3Method(BoxOnly(mute), SETTINGS).find(volume, region, quiet)
    assert detection.views_total - detection.views_read == 12
    assert detection.failures[0] == "slice 2: no JSON in the answer"
    assert len(detection.failures) == 12
    # A view that failed is no vote against a box.
    assert {(box.votes, box.views) for box in detection.candidates[0].boxes} == {(2, 2)}


def test_when_nothing_can_be_read_that_is_said(volume: CTVolume, region: LiverRegion) -> None:
    detection = M3Method(BoxOnly(lambda _v, _r: ViewResult(boxes=(), failure="broken")), SETTINGS).find(
        volume, region, quiet
    )
    assert (detection.views_total, detection.views_read, detection.candidates) == (36, 0, ())
    assert len(detection.failures) == 20


def test_boxes_with_too_few_votes_start_no_lesion(volume: CTVolume, region: LiverRegion) -> None:
    def only_wide(view: View, result: ViewResult) -> ViewResult:
        return result if view.padding == 0.2 else ViewResult(boxes=())

    assert len(M3Method(BoxOnly(only_wide), M3Settings(min_votes=1)).find(volume, region, quiet).candidates) == 2
    assert M3Method(BoxOnly(only_wide), M3Settings(min_votes=2)).find(volume, region, quiet).candidates == ()


@pytest.mark.parametrize(("count", "message"), [(-1, "without an answer"), (1, "more views than")])
def test_a_detector_that_loses_count_is_an_error(
    volume: CTVolume, region: LiverRegion, count: int, message: str
) -> None:
    class Miscounting(BoxOnly):
        def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
            results = list(super().look(views, volume, region))
            yield from results[:count] if count < 0 else [*results, *results[:count]]

    with pytest.raises(InferenceError, match=message):
        M3Method(Miscounting(), SETTINGS).find(volume, region, quiet)


def test_an_empty_envelope_shows_nothing(volume: CTVolume, region: LiverRegion) -> None:
    empty = LiverRegion(
        parenchyma=VoxelMask.empty(SHAPE),
        envelope=VoxelMask.empty(SHAPE),
        source=region.source,
        reference="",
        algorithm="",
    )
    detection = M3Method(BoxOnly(), SETTINGS).find(volume, empty, quiet)
    assert (detection.views_total, detection.candidates) == (0, ())
    assert characterise(volume, empty, detection, SETTINGS) == ()


def test_views_are_made_as_they_are_read_not_before(
    volume: CTVolume, region: LiverRegion, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    read: list[int] = []
    ahead: list[int] = []

    def counted(*arguments: Any) -> View:
        made.append(1)
        return make_view(*arguments)

    monkeypatch.setattr("m3node.m3.views.make_view", counted)

    class Batching(BoxOnly):
        def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
            iterator = iter(views)
            while batch := list(islice(iterator, 4)):
                for view in batch:
                    ahead.append(len(made) - len(read))
                    read.append(1)
                    yield ViewResult(boxes=dark_boxes(view))

    M3Method(Batching(), SETTINGS).find(volume, region, quiet)
    assert len(read) == len(made) > 36
    assert max(ahead) == 4  # the detector's own batch, and none more


def test_progress_is_told_for_each_look_from_its_first_view_to_its_last(volume: CTVolume, region: LiverRegion) -> None:
    told: list[tuple[str, int, int]] = []
    M3Method(BoxOnly(), SETTINGS).find(volume, region, lambda *call: told.append(call))
    assert told == [("looking", done, 36) for done in range(37)] + [("looking again", done, 4) for done in range(5)]


class Together(BoxOnly):
    """Answers ten views at once, and tells before it gives the results."""

    def look_telling(
        self, views: Iterable[View], volume: CTVolume, region: LiverRegion, answered: Callable[[int], None]
    ) -> Iterator[ViewResult]:
        iterator, before = iter(views), 0
        while batch := list(islice(iterator, 10)):
            for count in (0, 4, 3, len(batch)):
                answered(before + count)
            yield from (ViewResult(boxes=dark_boxes(view)) for view in batch)
            before += len(batch)


def test_answers_count_when_they_are_written_and_the_last_one_when_it_was_read(
    volume: CTVolume, region: LiverRegion
) -> None:
    told: list[tuple[str, int, int]] = []
    detection = M3Method(Together(), SETTINGS).find(volume, region, lambda *call: told.append(call))
    assert (detection.views_total, len(detection.candidates)) == (40, 2)
    first = [done for stage, done, total in told if (stage, total) == ("looking", 36)]
    assert first == sorted(first)
    assert first[:5] == [0, 0, 4, 4, 10]  # its tenth view has not been read yet, but written
    assert first.count(36) == 1
    assert [done for stage, done, _ in told if stage == "looking again"] == [0, 0, 3, 3, 3, 3, 3, 3, 4]
    assert len(told) == len(first) + 9


def test_a_detector_that_tells_can_be_stopped_in_the_midst_of_a_batch(volume: CTVolume, region: LiverRegion) -> None:
    class Enough(BaseException):
        pass

    told: list[int] = []

    def progress(_stage: str, done: int, _total: int) -> None:
        told.append(done)
        if done >= 14:
            raise Enough

    with pytest.raises(Enough):
        M3Method(Together(), SETTINGS).find(volume, region, progress)
    assert told[-3:] == [10, 10, 14]


def test_a_detectors_own_voxels_become_the_candidates_mask(volume: CTVolume, region: LiverRegion) -> None:
    def outlined(view: View, result: ViewResult) -> ViewResult:
        return ViewResult(boxes=tuple(replace(box, mask=voxels_in(view, box.box)) for box in result.boxes))

    detection = M3Method(BoxOnly(outlined), SETTINGS).find(volume, region, quiet)
    masks = [candidate.mask for candidate in detection.candidates]
    assert len(masks) == 2
    found = np.logical_or.reduce([mask.full() for mask in masks if mask is not None])
    assert np.array_equal(found, (volume.hu == 60) & region.envelope.full())


def test_a_candidate_with_a_box_without_voxels_has_no_mask(volume: CTVolume, region: LiverRegion) -> None:
    def outlined_but_on_slice_8(view: View, result: ViewResult) -> ViewResult:
        if view.slice_index == 8:
            return result
        return ViewResult(boxes=tuple(replace(box, mask=voxels_in(view, box.box)) for box in result.boxes))

    detection = M3Method(BoxOnly(outlined_but_on_slice_8), SETTINGS).find(volume, region, quiet)
    assert [candidate.mask for candidate in detection.candidates] == [None, None]


def test_candidates_come_best_first(volume: CTVolume, region: LiverRegion) -> None:
    def surer_on_the_right(view: View, result: ViewResult) -> ViewResult:
        boxes = (replace(box, score=0.9 if view.origin[1] + box.box.c0 > 50 else 0.3) for box in result.boxes)
        return ViewResult(boxes=tuple(boxes))

    candidates = M3Method(BoxOnly(surer_on_the_right), SETTINGS).find(volume, region, quiet).candidates
    assert [candidate.score for candidate in candidates] == [pytest.approx(0.9), pytest.approx(0.3)]
    assert candidates[0].boxes[0].box.c0 > 50


def test_a_view_that_fails_in_the_second_look_is_counted_too(volume: CTVolume, region: LiverRegion) -> None:
    def mute_when_asked_again(view: View, result: ViewResult) -> ViewResult:
        return ViewResult(boxes=(), failure="no answer") if view.padding == 0.0 else result

    detection = M3Method(BoxOnly(mute_when_asked_again), SETTINGS).find(volume, region, quiet)
    assert (detection.views_total, detection.views_read) == (40, 36)
    assert detection.failures == tuple(f"slice {k}: no answer" for k in (3, 11, 5, 11))


def test_whole_slices_are_each_shown_once_and_nothing_is_looked_at_again(volume: CTVolume, region: LiverRegion) -> None:
    shown: list[View] = []

    def noted(view: View, result: ViewResult) -> ViewResult:
        shown.append(view)
        return result

    detection = M3Method(BoxOnly(noted), M3Settings(views="slices")).find(volume, region, quiet)
    assert [(view.slice_index, view.hu.shape, view.origin, view.whole) for view in shown] == [
        (k, SHAPE[1:], (0, 0), True) for k in range(2, 14)
    ]
    assert detection.views_total == 12
    assert len(detection.candidates) == 2
    assert {(box.votes, box.views) for box in detection.candidates[0].boxes} == {(1, 1)}


def test_crops_are_not_whole_slices(volume: CTVolume, region: LiverRegion) -> None:
    whole: set[bool] = set()

    def noted(view: View, result: ViewResult) -> ViewResult:
        whole.add(view.whole)
        return result

    M3Method(BoxOnly(noted), SETTINGS).find(volume, region, quiet)
    assert whole == {False}


def test_attention_is_carried_to_the_slice_with_its_box(volume: CTVolume, region: LiverRegion) -> None:
    shown: list[View] = []

    def attentive(view: View, result: ViewResult) -> ViewResult:
        shown.append(view)
        # The grid of a view reaches beyond it, as a square around it does, and says which view it is of.
        area = Box2D(-5.0, 0.0, view.hu.shape[0] + 5.0, view.hu.shape[1])
        grid = AttentionGrid(values=np.full((2, 2), len(shown) / 1000, dtype=np.float32), area=area)
        boxes = tuple(replace(box, attention=grid) for box in result.boxes)
        return ViewResult(boxes=boxes, attention=grid)

    attention = M3Method(BoxOnly(attentive), SETTINGS).find(volume, region, quiet).attention
    for kept in attention:
        view = shown[round(float(kept.grid.values[0, 0]) * 1000) - 1]
        (r, c), (rows, columns) = view.origin, view.hu.shape
        assert (kept.slice_index, kept.padding) == (view.slice_index, view.padding)
        assert kept.grid.area == Box2D(r - 5.0, c, r + rows + 5.0, c + columns)
        if kept.box is not None:
            assert kept.grid.area.r0 <= kept.box.r0 < kept.box.r1 <= kept.grid.area.r1
            assert kept.box.c1 <= 100  # boxes outside the envelope are no finding, and their attention is not kept
    assert [kept.slice_index for kept in attention] == sorted(kept.slice_index for kept in attention)
    # Whole answers of the first look only: a second one is at a lesion's surroundings.
    assert sum(kept.box is None for kept in attention) == 36
    assert {kept.padding for kept in attention if kept.box is None} == set(SETTINGS.paddings)
    assert any(kept.padding == 0.0 for kept in attention if kept.box is not None)


def test_a_detector_without_attention_is_used_without(volume: CTVolume, region: LiverRegion) -> None:
    assert M3Method(BoxOnly(), SETTINGS).find(volume, region, quiet).attention == ()


def test_the_methods_parameters_are_part_of_the_identity() -> None:
    identity = M3Method(BoxOnly(), M3Settings(nms_iou=0.4)).identity
    assert ("m3.nms_iou", "0.4") in identity.parameters
    assert ("a", "b") in identity.parameters
    assert list(identity.parameters) == sorted(identity.parameters)
