"""The demo judges by the objects that came back: it reads them, and compares them with what was planted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from m3node.demo.archive import Kept
from m3node.demo.comparison import Comparison, Row, compare
from m3node.demo.returned import ReportedLesion, read_lesions, read_masks
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.evaluation.phantom import SMALL, Phantom, abdomen_phantom
from m3node.imaging.mask import VoxelMask
from m3node.intake.series.manifest import Manifest
from m3node.results.build import build_objects
from m3node.results.findings import Findings
from m3node.settings import Settings
from made_findings import made_findings, without_liver
from made_manifest import made_manifest, manifest_geometry


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    geometry = axial_geometry((12, 64, 80), (2.5, 0.8, 0.7), origin=(-20.0, 10.0, 300.0))
    return made_manifest(write_ct_series(tmp_path / "ct", np.zeros(geometry.shape, np.int16), geometry, seed="demo"))


def returned(findings: Findings, manifest: Manifest, folder: Path) -> list[Kept]:
    return [
        Kept(item.path, item.sop_class_uid, item.sop_instance_uid, item.study_instance_uid, item.series_instance_uid)
        for item in build_objects(findings, manifest, folder, Settings())
    ]


def test_what_the_reports_state_of_a_lesion_is_read_back(manifest: Manifest, tmp_path: Path) -> None:
    findings = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    lesions = read_lesions(returned(findings, manifest, tmp_path))
    assert [lesion.tracking_uid for lesion in lesions] == list(findings.tracking_uids)
    for lesion, true in zip(lesions, findings.lesions, strict=True):
        assert lesion.longest_mm == pytest.approx(true.measurements.longest.length_mm, abs=0.01)
        assert lesion.perpendicular_mm == pytest.approx(true.measurements.perpendicular.length_mm, abs=0.01)
        assert lesion.volume_ml == pytest.approx(true.measurements.volume_ml, abs=0.001)
        assert lesion.mean_hu == pytest.approx(true.measurements.hu_mean, abs=0.1)
        assert lesion.label


def test_the_segments_are_read_back_voxel_for_voxel_under_their_tracking_uid(
    manifest: Manifest, tmp_path: Path
) -> None:
    geometry = manifest_geometry(manifest)
    findings = made_findings(geometry, manifest_key=manifest.key)
    masks = read_masks(returned(findings, manifest, tmp_path), geometry)
    assert set(masks) > set(findings.tracking_uids)  # the liver is tracked as well
    for lesion, uid in zip(findings.lesions, findings.tracking_uids, strict=True):
        assert np.array_equal(masks[uid].full(), lesion.mask.full())


def test_an_answer_without_liver_has_no_lesions_and_no_masks(manifest: Manifest, tmp_path: Path) -> None:
    geometry = manifest_geometry(manifest)
    objects = returned(without_liver(made_findings(geometry, manifest_key=manifest.key)), manifest, tmp_path)
    assert read_lesions(objects) == ()
    assert read_masks(objects, geometry) == {}


@cache
def phantom() -> Phantom:
    return abdomen_phantom(seed=3, **SMALL)


def reported(uid: str, longest: float = 20.0) -> ReportedLesion:
    return ReportedLesion(uid, uid, longest, longest, 1.0, 60.0)


def test_lesions_found_where_they_were_planted_are_paired_with_them() -> None:
    masks = {f"1.{n}": lesion.mask for n, lesion in enumerate(phantom().lesions)}
    comparison = compare(phantom(), [reported(uid, 10.0) for uid in reversed(masks)], masks)
    assert comparison.found == 5
    assert comparison.false == ()
    assert comparison.good_enough
    for row, true in zip(comparison.rows, phantom().lesions, strict=True):
        assert (row.planted_mm, row.found_mm, row.iou) == (true.diameter_mm, 10.0, 1.0)
        assert row.distance_mm == pytest.approx(0.0)


def test_the_distance_is_in_millimetres_of_the_patient() -> None:
    true = phantom().lesions[4].mask
    moved = replace(true, start=(true.start[0] + 1, true.start[1], true.start[2] + 1))
    row = compare(phantom(), [reported("1.2")], {"1.2": moved}).rows[4]
    assert row.distance_mm == pytest.approx(np.hypot(5.0, 3.0))
    assert row.iou is not None
    assert 0.2 < row.iou < 1.0


def test_a_lesion_elsewhere_or_without_voxels_is_false_and_the_planted_ones_are_missed() -> None:
    far = np.zeros(phantom().geometry.shape, dtype=np.bool_)
    far[0:3, 0:5, 0:5] = True
    comparison = compare(phantom(), [reported("1.2"), reported("1.3")], {"1.2": VoxelMask.from_full(far)})
    assert comparison.found == 0
    assert [lesion.tracking_uid for lesion in comparison.false] == ["1.2", "1.3"]
    assert not comparison.good_enough


def test_a_segment_without_a_voxel_is_false_and_takes_no_other_lesions_place() -> None:
    true = phantom().lesions[4]
    masks = {"1.1": VoxelMask.empty(true.mask.shape), "1.2": true.mask}
    comparison = compare(phantom(), [reported("1.1", 99.0), reported("1.2", 20.0)], masks)
    assert [row.found_mm for row in comparison.rows] == [None, None, None, None, 20.0]
    assert [lesion.tracking_uid for lesion in comparison.false] == ["1.1"]


@pytest.mark.parametrize(
    ("planted", "found", "false", "good"),
    [(5, 5, 0, True), (5, 4, 1, True), (5, 3, 0, False), (5, 5, 2, False), (0, 0, 1, True), (0, 0, 2, False)],
)
def test_one_missed_and_one_false_lesion_are_allowed(planted: int, found: int, false: int, good: bool) -> None:
    rows = tuple(Row(n, 10.0, 10.0 if n < found else None, None, None) for n in range(planted))
    assert Comparison(rows, tuple(reported(str(n)) for n in range(false))).good_enough is good
