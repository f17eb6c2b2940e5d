"""A lesion that is still there keeps its tracking UID; the older reports become predecessors."""

from __future__ import annotations

from pathlib import Path

import pytest

from m3node.evaluation.ct_writer import axial_geometry
from m3node.results.findings import Findings
from m3node.results.objects import ObjectKind, ResultObject
from m3node.results.store import load_findings, save_findings
from m3node.results.succession import succeed
from made_findings import ellipsoid, made_findings

GEOMETRY = axial_geometry((20, 60, 60), (2.0, 1.0, 1.0))
# The newer generation has a slice more below: every index moves by one, patient coordinates stay.
LONGER = axial_geometry((21, 60, 60), (2.0, 1.0, 1.0), origin=(0.0, 0.0, -2.0))

A, B, C = ((6.0, 20.0, 20.0), 5.0), ((12.0, 40.0, 40.0), 7.0), ((15.0, 15.0, 45.0), 6.0)


def run(key: str, *balls: tuple[tuple[float, float, float], float], longer: bool = False) -> Findings:
    geometry = LONGER if longer else GEOMETRY
    masks = [
        ellipsoid(geometry.shape, (centre[0] + longer, centre[1], centre[2]), (radius / 2, radius, radius))
        for centre, radius in balls
    ]
    return made_findings(geometry, manifest_key=key * 64, lesions=masks)


def result(kind: ObjectKind, number: int) -> ResultObject:
    return ResultObject(
        kind=kind,
        path=Path(kind.file_name),
        sha256="",
        sop_class_uid=f"1.1.{number}",
        sop_instance_uid=f"1.2.{number}",
        series_instance_uid=f"1.3.{number}",
        study_instance_uid="1.4",
    )


def test_a_lesion_at_the_same_place_keeps_its_uid_whatever_its_number_and_slice() -> None:
    older = run("a", A, B)
    newer = succeed(run("b", B, A, longer=True), older, ())
    assert newer.tracking_uids == (older.tracking_uids[1], older.tracking_uids[0])


def test_a_new_lesion_gets_a_new_uid_and_a_lost_one_leaves_none() -> None:
    older = run("a", A, B)
    newer = succeed(run("b", B, C), older, ())
    assert newer.tracking_uids[0] == older.tracking_uids[1]
    assert newer.tracking_uids[1] not in older.tracking_uids


def test_one_earlier_lesion_is_continued_once_by_the_nearer() -> None:
    older = run("a", B)
    near = ((12.0, 40.0, 41.0), 7.0)
    far = ((12.0, 40.0, 34.5), 3.0)
    newer = succeed(run("b", far, near), older, ())
    assert newer.tracking_uids[1] == older.tracking_uids[0]
    assert newer.tracking_uids[0] != older.tracking_uids[0]


@pytest.mark.parametrize(("moved", "same"), [(7.0, True), (8.0, False)])
def test_a_lesion_that_lies_farther_off_than_half_its_diameter_is_another(moved: float, same: bool) -> None:
    older = run("a", B)
    assert older.lesions[0].measurements.longest.length_mm == 15.0
    newer = succeed(run("b", ((12.0, 40.0, 40.0 + moved), 7.0)), older, ())
    assert (newer.tracking_uids == older.tracking_uids) is same


def test_a_pair_out_of_reach_takes_no_lesion_from_a_pair_within() -> None:
    # In a row: the least sum of distances, 14 + 22 mm against 2 + 38, would pair two by two lesions that are not one.
    older = run("a", ((12.0, 40.0, 16.0), 5.0), ((12.0, 40.0, 40.0), 5.0))
    newer = succeed(run("b", ((12.0, 40.0, 2.0), 5.0), ((12.0, 40.0, 18.0), 5.0)), older, ())
    assert newer.tracking_uids[1] == older.tracking_uids[0]
    assert newer.tracking_uids[0] not in older.tracking_uids


def test_tracking_goes_on_over_generations_and_to_none_from_none() -> None:
    first = run("a", A)
    second = succeed(run("b", A, longer=True), first, ())
    third = succeed(run("c", A), second, ())
    assert third.tracking_uids == first.tracking_uids
    assert succeed(run("d"), third, ()).tracking_uids == ()
    assert succeed(run("e", A), run("d"), ()).tracking_uids == run("e", A).tracking_uids


def test_only_reports_become_predecessors() -> None:
    objects = [result(kind, number) for number, kind in enumerate(ObjectKind)]
    newer = succeed(run("b", A), run("a", A), objects)
    reports = {item.sop_instance_uid for item in objects if item.kind.value.endswith(".sr")}
    assert {item.sop_instance_uid for item in newer.predecessors} == reports
    assert len(reports) == 4


def test_lesions_are_tracked_when_the_masks_of_the_older_generation_are_gone(tmp_path: Path) -> None:
    older = run("a", A, B)
    save_findings(older, tmp_path)
    (tmp_path / "masks.npz").unlink()
    newer = succeed(run("b", B, A, longer=True), load_findings(tmp_path, masks=False), ())
    assert newer.tracking_uids == (older.tracking_uids[1], older.tracking_uids[0])
