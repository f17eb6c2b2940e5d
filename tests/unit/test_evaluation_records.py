"""What is kept of a case in a condition, reckoned by hand on blocks of voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from m3node.detectors.protocols import (
    Box2D,
    Candidate,
    Detection,
    DetectorIdentity,
    ScoreKind,
    SliceBox,
    View,
    ViewBox,
    ViewResult,
)
from m3node.errors import InferenceError
from m3node.evaluation.ablation import regions, running
from m3node.evaluation.ablation.conditions import Condition, Shown
from m3node.evaluation.ablation.looking import look
from m3node.evaluation.ablation.record import KnownLesion, Record
from m3node.evaluation.ablation.regions import LiverFrom
from m3node.evaluation.ablation.running import Plan, Protocol, Run, known_lesion, run_plan
from m3node.evaluation.cases.layout import find_cases
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.nifti import RAS_TO_LPS, write_nifti_mask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from m3node.progress import silent
from m3node.settings import DetectorSettings, LiverSettings, M3Settings, MedGemmaSettings, Settings, SteeringSettings

SHAPE = (12, 60, 60)
GEOMETRY = axial_geometry(SHAPE, (2.0, 1.0, 0.5))


def block(k: tuple[int, int], r: tuple[int, int], c: tuple[int, int]) -> VoxelMask:
    size = tuple(last - first for first, last in (k, r, c))
    return VoxelMask(shape=SHAPE, start=(k[0], r[0], c[0]), data=np.ones(size, dtype=np.bool_))


def changed(section: str, **values: Any) -> Settings:
    """Settings with a liver of any size, but for what is named."""
    settings = Settings(liver=LiverSettings(min_volume_ml=1.0))
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


LIVER = block((1, 11), (4, 56), (4, 56))
# 3 slices of 10 × 12 and 3 of 8 × 8; together they cover most on slice 4.
LARGE, SMALL = block((2, 5), (10, 20), (12, 24)), block((4, 7), (40, 48), (40, 48))
# Half of the large one, and as many voxels beside it, on three slices.
FOUND = block((2, 5), (10, 20), (18, 30))


class Knows:
    """Finds what it was told, whatever it is shown."""

    identity = DetectorIdentity("knows", "1", "For tests.")

    def __init__(self, *masks: VoxelMask) -> None:
        self.masks = masks
        self.regions: list[LiverRegion] = []

    def find(self, volume: CTVolume, region: LiverRegion, progress: object) -> Detection:
        self.regions.append(region)
        candidates = []
        for mask in self.masks:
            (k0, k1), (r0, r1), (c0, c1) = mask.extent or ((0, 0),) * 3
            boxes = tuple(SliceBox(k, Box2D(r0, c0, r1, c1), 0.5, votes=2, views=3) for k in range(k0, k1))
            candidates.append(Candidate(boxes, 0.5, ScoreKind.PROBABILITY, mask))
        return Detection(tuple(candidates), views_total=9, views_read=7)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    folder = tmp_path / "cases" / "one"
    folder.mkdir(parents=True)
    affine = RAS_TO_LPS @ GEOMETRY.affine[:, [2, 1, 0, 3]]
    hu = np.where(LIVER.full(), 100, -50).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine), folder / "ct.nii.gz")
    write_nifti_mask(LIVER, GEOMETRY, folder / "liver.nii.gz")
    write_nifti_mask(1 * LARGE.full() + 2 * SMALL.full(), GEOMETRY, folder / "lesions.nii.gz")
    return folder.parent


def plan_of(cases: Path, **change: Any) -> Plan:
    conditions = (Condition("method", "whole method", Shown.METHOD, DetectorSettings()),)
    return replace(Plan(conditions, changed("liver"), Protocol.WHOLE, LiverFrom.TRUTH, cases.parent / "out"), **change)


@pytest.fixture
def run(cases: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def run(detector: Knows, **change: Any) -> Run:
        monkeypatch.setattr(running, "load_detector", lambda _: detector)
        return run_plan(find_cases(cases), plan_of(cases, **change), silent)

    return run


def only(found: Run) -> Record:
    assert found.unusable == ()
    (record,) = found.records
    return record


def test_a_record_holds_what_was_found_and_what_is_true(run: Callable[..., Run]) -> None:
    record = only(run(Knows(FOUND)))
    assert (record.case, record.patient, record.condition) == ("one", "one", "method")
    assert (record.views_total, record.views_read) == (9, 7)
    assert record.truth == (
        KnownLesion(LARGE.extent, record.truth[0].diameter_mm, 0.36, tuple((k, (10, 12, 20, 24)) for k in (2, 3, 4))),
        KnownLesion(SMALL.extent, record.truth[1].diameter_mm, 0.192, tuple((k, (40, 40, 48, 48)) for k in (4, 5, 6))),
    )
    assert [(box.k, box.box, box.score, box.votes, box.views) for box in record.boxes] == [
        (k, (10, 18, 20, 30), 0.5, 2, 3) for k in (2, 3, 4)
    ]
    (found,) = record.found
    assert (found.extent, found.score, found.volume_ml) == (FOUND.extent, 0.5, pytest.approx(0.36))
    # 3 · 10 · 6 of 3 · 10 · 12 and 3 · 10 · 12 + 3 · 8 · 8.
    assert record.dice == pytest.approx(2 * 180 / (360 + 360 + 192))
    assert (record.liver_found, record.liver_dice) == (True, 1.0)
    assert set(range(1, 11)) <= set(record.slices)


def test_a_true_lesion_is_measured_in_millimetres_on_its_largest_slice() -> None:
    data = np.zeros((3, 12, 20), dtype=np.bool_)
    data[0, :2, :2] = data[1, :9, :12] = True  # 9 mm × 6 mm on the second, and a hole in the third's height
    lesion = known_lesion(VoxelMask(shape=SHAPE, start=(4, 10, 20), data=data), GEOMETRY)
    assert lesion.extent == ((4, 6), (10, 19), (20, 32))
    assert lesion.boxes == ((4, (10, 20, 12, 22)), (5, (10, 20, 19, 32)))
    assert lesion.volume_ml == pytest.approx((4 + 108) * 2.0 * 1.0 * 0.5 / 1000)
    assert lesion.diameter_mm == pytest.approx(np.hypot(9.0, 6.0), abs=1.0)


def test_who_finds_nothing_has_a_dice_of_0_and_a_healthy_case_none(cases: Path, run: Callable[..., Run]) -> None:
    record = only(run(Knows()))
    assert (record.found, record.boxes, record.dice) == ((), (), 0.0)
    (cases / "one" / "lesions.nii.gz").unlink()
    assert (only(run(Knows(FOUND))).truth, only(run(Knows(FOUND))).dice) == (None, None)
    (cases / "one" / "case.toml").write_text("healthy = true\n")
    record = only(run(Knows(FOUND)))
    assert (record.truth, record.dice, len(record.found)) == ((), None, 1)


def test_two_findings_are_measured_together(run: Callable[..., Run]) -> None:
    assert only(run(Knows(FOUND, SMALL))).dice == pytest.approx(2 * (180 + 192) / (360 + 192 + 360 + 192))


def test_the_published_protocol_shows_and_counts_one_slice_and_takes_the_true_liver(run: Callable[..., Run]) -> None:
    detector = Knows(block((4, 6), (10, 20), (18, 30)))
    record = only(run(detector, protocol=Protocol.PUBLISHED, liver=LiverFrom.PREDICTED))
    assert record.slices == (4,)
    (region,) = detector.regions
    assert region.envelope.extent is not None
    assert region.envelope.extent[0] == (4, 5)
    assert record.liver_dice == 1.0
    assert record.truth is not None
    assert [lesion.boxes for lesion in record.truth] == [((4, (10, 12, 20, 24)),), ((4, (40, 40, 48, 48)),)]
    # What is true on other slices counts neither way: 10 · 6 of 10 · 12 + 8 · 8 and 2 · 10 · 12.
    assert record.dice == pytest.approx(2 * 60 / (120 + 64 + 240))


def test_where_no_liver_is_found_nothing_is_shown_and_everything_missed(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "find_liver", lambda *_: None)
    detector = Knows(FOUND)
    record = only(run(detector, liver=LiverFrom.PREDICTED))
    assert detector.regions == []
    assert (record.liver_found, record.liver_dice, record.slices, record.views_total) == (False, 0.0, (), 0)
    assert (record.found, record.dice) == ((), 0.0)


def test_the_livers_dice_is_of_the_tissue_that_was_found(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = block((1, 11), (4, 56), (4, 30))  # half of it
    region = LiverRegion(found, found, LiverSource.EMBEDDED, "", "for tests")
    monkeypatch.setattr(regions, "find_liver", lambda *_: region)
    record = only(run(Knows(), liver=LiverFrom.PREDICTED))
    assert record.liver_dice == pytest.approx(2 * 0.5 / (1 + 0.5))


def steered(alpha: float) -> tuple[Condition, ...]:
    medgemma = MedGemmaSettings(steering=SteeringSettings(alpha=alpha))
    return (Condition("method", "whole method", Shown.METHOD, DetectorSettings(name="medgemma", medgemma=medgemma)),)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": changed("liver", envelope_dilation_mm=6.0)},
        {"settings": changed("m3", min_votes=2)},
        {"settings": changed("eligibility", min_slices=9)},
        {"protocol": Protocol.PUBLISHED},
        {"liver": LiverFrom.PREDICTED},
        {"conditions": steered(2.0)},
        {"conditions": (Condition("method", "whole method", Shown.METHOD, DetectorSettings(name="other")),)},
    ],
    ids=("liver", "m3", "eligibility", "protocol", "whose liver", "steering", "detector"),
)
def test_a_record_belongs_to_the_settings_it_was_made_with(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(regions, "find_liver", lambda *_: None)
    detector = Knows()
    assert (run(detector).reused, run(detector).reused) == (0, 1)
    assert (run(detector, **change).reused, run(detector, **change).reused) == (0, 1)
    assert run(detector).reused == 1


def test_a_record_belongs_to_the_detectors_identity_and_to_the_patient(cases: Path, run: Callable[..., Run]) -> None:
    class Newer(Knows):
        identity = DetectorIdentity("knows", "2", "For tests.")

    class OtherWeights(Knows):
        identity = DetectorIdentity("knows", "1", "For tests.", weights="sha256:1")

    assert [run(kind()).reused for kind in (Knows, Newer, OtherWeights, Knows)] == [0, 0, 0, 1]
    # Not by the case's files alone: its name is its patient's, too.
    (cases / "one").rename(cases / "two")
    (cases.parent / "out" / "records" / "one").rename(cases.parent / "out" / "records" / "two")
    found = run(Knows())
    assert (found.reused, only(found).patient) == (0, "two")


class Answers:
    """Answers each view with what stands for its slice; one answer too many, or too few, where told so."""

    identity = DetectorIdentity("answers", "1", "For tests.")
    score_kind = ScoreKind.PROBABILITY

    def __init__(self, by_slice: dict[int, list[ViewBox]], more: int = 0) -> None:
        self.by_slice = by_slice
        self.more = more

    def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        results = [ViewResult(tuple(self.by_slice.get(view.slice_index, ()))) for view in views]
        yield from results[: len(results) + min(self.more, 0)]
        yield from [ViewResult(())] * self.more


def box(r: int, c: int, score: float, *, masked: bool = True) -> ViewBox:
    mask = np.zeros(SHAPE[1:], dtype=np.bool_)
    mask[r + 1 : r + 9, c + 1 : c + 9] = True
    return ViewBox(Box2D(r, c, r + 10, c + 10), score, mask if masked else None)


def looked(detector: Answers, **settings: Any) -> Detection:
    volume = CTVolume(np.full(SHAPE, 100, np.int16), GEOMETRY, ())
    region = LiverRegion(LIVER, LIVER, LiverSource.LABEL_MAP, "", "for tests")
    return look(detector, Shown.SLICE, volume, region, M3Settings(**settings))


def test_boxes_of_single_views_are_linked_over_gaps_with_their_own_voxels_best_first() -> None:
    # Two slices of 2 mm are left out at most; slice 8 is too far from slice 4.
    by_slice = {2: [box(10, 10, 0.3), box(40, 40, 0.6)], 4: [box(11, 10, 0.4)], 8: [box(11, 10, 0.5)]}
    detection = looked(Answers(by_slice), link_gap_mm=4.0)
    assert [candidate.score for candidate in detection.candidates] == [0.6, 0.5, 0.4]
    linked = detection.candidates[2]
    assert [(b.slice_index, b.box, b.score, b.votes, b.views) for b in linked.boxes] == [
        (2, Box2D(10, 10, 20, 20), 0.3, 1, 1),
        (4, Box2D(11, 10, 21, 20), 0.4, 1, 1),
    ]
    assert linked.mask is not None
    expected = np.zeros(SHAPE, dtype=np.bool_)
    expected[2, 11:19, 11:19] = expected[4, 12:20, 11:19] = True
    assert np.array_equal(linked.mask.full(), expected)
    apart = looked(Answers(by_slice), link_gap_mm=1.0).candidates
    assert [len(candidate.boxes) for candidate in apart] == [1, 1, 1, 1]


def test_a_finding_has_voxels_only_where_each_of_its_boxes_has() -> None:
    detection = looked(Answers({2: [box(10, 10, 0.3)], 3: [box(10, 10, 0.3, masked=False)]}))
    (found,) = detection.candidates
    assert len(found.boxes) == 2
    assert found.mask is None


@pytest.mark.parametrize(
    ("more", "message"), [(1, "answered more views than it was shown"), (-1, "left views without")]
)
def test_a_detector_answers_as_many_views_as_it_is_shown(more: int, message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        looked(Answers({}, more))
