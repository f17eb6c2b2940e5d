"""What becomes of objects that are no CT, that are ours, or that do not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom.uid import XRayRadiationDoseSRStorage

from keeping import QUIET, Node, changed, liver_seg
from m3node.evaluation.ct_writer import seeded_uid
from m3node.identity import DEVICE_UID
from m3node.intake.receive.association import OpenLease
from m3node.rejection import Reason


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_our_own_object_that_comes_back_starts_nothing_not_even_where_a_late_seg_would(tmp_path: Path) -> None:
    node = Node(tmp_path, late_seg=True)
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    node.store(liver_seg(files, DeviceUID=DEVICE_UID))
    node.wait(QUIET)
    assert len(node.manifests) == 1
    assert node.recorded == []
    assert node.keeper.waiting == frozenset()


def test_our_own_object_is_known_by_its_uid_when_the_archive_dropped_the_device(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    files = node.series()
    node.store(*files)
    node.wait(QUIET)
    seg = liver_seg(files)
    run = node.layout.results / f"{seeded_uid(1, 'series')}.g1"
    run.mkdir()
    torn = node.layout.results / "1.2.g1"
    torn.mkdir()
    (torn / "run.json").write_text("{")
    (node.layout.manifests / "1.2.g1.json").write_text("{}")
    (run / "run.json").write_text(json.dumps({"objects": [{"sop_instance_uid": seeded_uid("seg")}]}))
    node.store(seg)
    node.wait(QUIET)
    index = node.layout.index / f"{seeded_uid('seg', 'series')}.jsonl"
    assert json.loads(index.read_text().splitlines()[0]).keys() == {"own"}
    assert (len(list(node.layout.manifests.iterdir())), node.recorded) == (2, [])
    assert "run.json of run 1.2.g1 is damaged" in caplog.text


def test_a_uid_that_begins_like_ours_and_is_no_uuid_is_another_makers(node: Node) -> None:
    files = node.series()
    values = {"SOPInstanceUID": "2.25." + "9" * 50}
    node.store(*files[:5], changed(files[5], "odd.dcm", lambda ds: ds.update(values)), *files[6:])
    node.wait(QUIET)
    assert len(node.manifests[0].slices) == 12


def test_a_seg_that_arrives_first_is_used(node: Node) -> None:
    files = node.series()
    node.store(liver_seg(files))
    node.wait(QUIET)
    node.store(*files)
    node.wait(QUIET)
    assert len(node.manifests[0].liver_segs) == 1
    assert node.recorded == []


def test_of_a_seg_that_came_again_with_other_bytes_the_newest_is_used(node: Node) -> None:
    files = node.series()
    first = liver_seg(files)
    again = changed(first, "again.dcm", lambda ds: ds.update({"ContentLabel": "AGAIN"}))
    node.store(first)
    node.store(again, revision="0a0a0a0a")
    node.store(*files)
    node.wait(QUIET)
    assert [Path(seg.path).suffixes[-2:] for seg in node.manifests[0].liver_segs] == [[".r0a0a0a0a", ".dcm"]]


def test_a_seg_without_a_liver_is_recorded_and_not_used(node: Node) -> None:
    files = node.series()
    node.store(*files, liver_seg(files, code=("SCT", "64033007")))
    node.wait(QUIET)
    assert node.manifests[0].liver_segs == ()
    assert node.reasons == [(0, Reason.NOT_CT)]


def test_an_object_that_is_no_ct_and_a_file_that_is_no_dicom_get_a_reason(node: Node) -> None:
    files = node.series()
    dose = changed(files[0], "dose.dcm", lambda ds: ds.update({"SOPClassUID": XRayRadiationDoseSRStorage}))
    node.store(dose)
    path, status = node.spool(files[1])
    (node.layout.root / path).write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    lease = OpenLease(node.layout.associations, calling="PACS", called="M3NODE", peer="127.0.0.1")
    lease.append(path, status)
    lease.close()
    node.wait(QUIET)
    assert node.manifests == []
    assert sorted(node.reasons) == [(0, Reason.NOT_CT), (0, Reason.NOT_DICOM)]
    assert len({(key, digest) for key, _, digest, _ in node.recorded}) == 2, "neither is taken for the other"


def test_the_same_series_in_another_study_is_refused_whole(node: Node) -> None:
    files = node.series()
    moved = [
        changed(
            file,
            f"moved-{file.name}",
            lambda ds, file=file: ds.update(
                {"StudyInstanceUID": seeded_uid("moved"), "SOPInstanceUID": seeded_uid("moved", file.name)}
            ),
        )
        for file in files[6:]
    ]
    node.store(*files[:6], *moved)
    node.wait(QUIET)
    assert node.manifests == []
    assert node.reasons == [(1, Reason.MIXED_STUDIES)]


def test_a_reason_names_no_patient(node: Node) -> None:
    node.store(*node.series(PatientID="SECRET", PatientName="SECRET^NAME", slices=3))
    node.wait(QUIET)
    ((_, _, _, rejection),) = node.recorded
    assert rejection.reason is Reason.TOO_FEW_SLICES
    assert "SECRET" not in rejection.message
