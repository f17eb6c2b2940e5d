"""The worker's queue is the files themselves."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from m3node.errors import ResultError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series.manifest import Manifest, make_manifest, read_manifest, write_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.jobs import runner
from m3node.jobs.answer.record import RunRecord, read_record, write_record
from m3node.jobs.answer.steps import make_detector
from m3node.jobs.runner import CRASH_LIMIT, Queue, _crashed, answer, run_worker
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject
from m3node.results.store import load_findings
from m3node.settings import Destination, Settings
from waiting import wait_for


def _layout(root: Path) -> DataLayout:
    layout = DataLayout(root)
    layout.create()
    return layout


def _manifest(layout: DataLayout, name: str, age: int) -> Path:
    path = layout.manifests / f"{name}.json"
    path.write_text("{}")
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def _record(folder: Path, *objects: ResultObject) -> RunRecord:
    return RunRecord("1.2", 1, "k", "1.1", "1.2", Outcome.NO_LESION, 0, objects, "", "", "")


def test_the_oldest_manifest_without_a_finished_run_is_next(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    young = _manifest(layout, "1.2.g1", age=10)
    old = _manifest(layout, "1.3.g1", age=20)
    queue = Queue(layout)
    assert queue.next() == old
    folder = layout.results / old.stem
    folder.mkdir()
    write_record(_record(folder), folder)
    assert queue.next() == young


def test_a_manifest_that_arrives_later_is_seen(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    queue = Queue(layout)
    assert queue.next() is None
    path = _manifest(layout, "1.2.g1", age=0)
    assert queue.next() == path


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    item = ResultObject(ObjectKind.SEGMENTATION, tmp_path / "segmentation.seg.dcm", "ab", "1.5", "1.6", "1.7", "1.1")
    rejection = Rejection(Reason.FAILED, "no objects could be built", "1.2.g1")
    record = replace(_record(tmp_path, item), rejection=rejection, started_at=7.5, finished_at=9.25, worker="0")
    assert write_record(record, tmp_path) == record
    assert read_record(tmp_path) == record
    assert read_record(tmp_path / "elsewhere") is None


def test_the_first_record_of_a_run_stays_and_says_when_the_run_ended(tmp_path: Path) -> None:
    before = time.time()
    first = write_record(_record(tmp_path), tmp_path)
    assert before <= first.finished_at <= time.time()
    assert write_record(replace(_record(tmp_path), lesions=3), tmp_path) == first


def test_a_record_of_an_older_release_has_no_times(tmp_path: Path) -> None:
    write_record(_record(tmp_path), tmp_path)
    path = tmp_path / "run.json"
    tree = json.loads(path.read_text())
    for name in ("rejection", "cancelled", "started_at", "finished_at", "worker"):
        del tree[name]
    path.write_text(json.dumps(tree))
    assert read_record(tmp_path) == _record(tmp_path)


def test_a_run_that_took_its_worker_down_again_and_again_is_set_aside(tmp_path: Path) -> None:
    for _ in range(CRASH_LIMIT):
        assert _crashed(tmp_path, "1.2.g1") is None
    rejection = _crashed(tmp_path, "1.2.g1")
    assert rejection is not None
    assert rejection.reason is Reason.FAILED
    assert "1.2.g1" in rejection.message


@pytest.mark.parametrize("started", ["1", ""], ids=["its id used again, as in a container", "its id alone"])
def test_starts_under_another_supervisor_do_not_count(tmp_path: Path, started: str) -> None:
    (tmp_path / "starts").write_text(f"{os.getppid()}.{started}\n" * CRASH_LIMIT)
    assert _crashed(tmp_path, "1.2.g1") is None


def _generation(layout: DataLayout, slices: int, number: int, before: Manifest | None, *, rename: str = "") -> Path:
    """Make a manifest of the first slices of one series without a liver."""
    folder = layout.spool / "series"
    shape = (12, 64, 64)
    hu = np.full(shape, -1000, dtype=np.int16)
    if not folder.exists():
        write_ct_series(folder, hu, axial_geometry(shape, (2.0, 1.0, 1.0)), seed="runner")
    files = sorted(folder.iterdir())[:slices]
    (stack,) = group_stacks([read_header(path, layout.spool) for path in files])
    if rename:
        stack = replace(stack, key=replace(stack.key, stack=rename))
    manifest = make_manifest(
        stack, root=layout.spool, generation=number, supersedes=before.key if before else "", created_at=0.0
    )
    return write_manifest(manifest, layout.manifests)


@pytest.mark.parametrize("rename", ["", "ab12"], ids=["same label", "label changed"])
def test_a_newer_generation_cancels_what_waits_and_names_its_predecessor(tmp_path: Path, rename: str) -> None:
    layout = _layout(tmp_path)
    archive = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=104)
    settings = Settings(data_dir=tmp_path, destinations=(archive,))
    detector = make_detector(settings)
    first = _generation(layout, 10, 1, None)
    older = answer(first, layout, settings, detector)
    assert older.outcome is Outcome.NO_LIVER
    waiting = layout.outbox / "archive"
    assert {path.name for path in waiting.glob("*.json")} == {
        f"{first.stem}.{o.kind.value}.json" for o in older.objects
    }
    second = _generation(layout, 12, 2, read_manifest(first), rename=rename)
    newer = answer(second, layout, settings, detector)
    assert {path.name.split(".g")[1][0] for path in waiting.glob("*.json")} == {"2"}
    cancelled = list((waiting / "aside").glob("*.json"))
    assert len(cancelled) == len(older.objects)
    assert all(f"superseded by {second.stem}" in path.read_text() for path in cancelled)
    before, after = ({item.kind: item for item in run.objects}[ObjectKind.REPORT] for run in (older, newer))
    named = [
        sop.ReferencedSOPInstanceUID
        for study in pydicom.dcmread(after.path).PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]
    assert before.sop_instance_uid in named
    assert after.series_instance_uid != before.series_instance_uid


def test_a_generation_that_was_superseded_before_it_began_is_closed_without_objects(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    first = _generation(layout, 10, 1, None)
    second = _generation(layout, 12, 2, read_manifest(first))
    record = answer(first, layout, settings, make_detector(settings))
    assert record.superseded_by == read_manifest(second).key
    assert record.objects == ()


def test_a_run_that_was_answered_stays_byte_for_byte(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    path = _generation(layout, 10, 1, None)
    record = answer(path, layout, settings, make_detector(settings))
    folder = layout.results / path.stem
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    assert {item.path.name for item in record.objects} < set(before)
    (folder / "run.json").unlink()
    again = answer(path, layout, settings, make_detector(settings))
    assert replace(again, finished_at=record.finished_at) == record
    kept = set(before) - {"run.json", "starts"}
    assert {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in kept} == {
        name: before[name] for name in kept
    }


def test_a_slice_that_is_gone_gives_a_reason_and_no_objects(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    path = _generation(layout, 10, 1, None)
    (layout.spool / "series" / "0003.dcm").unlink()
    record = answer(path, layout, settings, make_detector(settings))
    assert record.outcome is Outcome.REJECTED
    rejection = load_findings(layout.results / path.stem).rejection
    assert rejection is not None
    assert rejection.reason is Reason.UNDECODABLE
    assert read_record(layout.results / path.stem) == record


def test_a_full_disk_is_not_counted_against_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    path = _generation(layout, 10, 1, None)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(runner, "build", full)
        for _ in range(2 * CRASH_LIMIT):
            with pytest.raises(OSError, match="No space"):
                answer(path, layout, settings, make_detector(settings))
    assert answer(path, layout, settings, make_detector(settings)).outcome is Outcome.NO_LIVER


def test_a_run_in_trouble_lets_other_series_go_first_and_its_own_later_generation_never(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    first = _manifest(layout, "1.2.g1", age=30)
    second = _manifest(layout, "1.2.g2", age=20)
    other = _manifest(layout, "1.3.g1", age=10)
    queue = Queue(layout)
    assert queue.next() == first
    queue.defer(first)
    assert queue.next() == other
    queue.skip(other)
    assert queue.next() == first
    queue.skip(first)
    assert queue.next() == second


@pytest.mark.parametrize("content", ["", "{", "[]", '{"objects": [{}]}'])
def test_a_damaged_record_costs_only_what_it_says(tmp_path: Path, content: str) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    first = _generation(layout, 10, 1, None)
    folder = layout.results / first.stem
    folder.mkdir()
    (folder / "run.json").write_text(content)
    with pytest.raises(ResultError, match="damaged"):
        read_record(folder)
    second = _generation(layout, 12, 2, read_manifest(first))
    assert answer(second, layout, settings, make_detector(settings)).outcome is Outcome.NO_LIVER


def test_a_sibling_of_another_version_does_not_hold_a_run_up(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    path = _generation(layout, 10, 1, None)
    tree = json.loads(path.read_text())
    _manifest(layout, f"{tree['stack'][0]}.g2", age=0).write_text(json.dumps({**tree, "format": "m3node.manifest/0"}))
    assert answer(path, layout, settings, make_detector(settings)).outcome is Outcome.NO_LIVER


def test_damaged_findings_close_their_run_with_a_reason(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    path = _generation(layout, 10, 1, None)
    folder = layout.results / path.stem
    folder.mkdir()
    (folder / "findings.json").write_text('{"schema": ')
    record = answer(path, layout, settings, make_detector(settings))
    assert "findings.json is damaged" in record.failure
    assert record.objects == ()
    assert read_record(folder) == record


@pytest.mark.parametrize("unforeseen", [False, True], ids=["damaged manifest", "error that nobody foresaw"])
def test_a_run_that_cannot_be_begun_does_not_stop_the_worker(
    tmp_path: Path, unforeseen: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layout = _layout(tmp_path)
    settings = Settings(data_dir=tmp_path)
    bad = _manifest(layout, "1.2.g1", age=1_000)
    good = _generation(layout, 10, 1, None)
    if unforeseen:

        def read(path: Path) -> Manifest:
            return {}["PATIENT^NAME"] if path == bad else read_manifest(path)

        monkeypatch.setattr(runner, "read_manifest", read)
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(settings, stop))
    worker.start()
    try:
        wait_for((layout.results / good.stem / "run.json").exists)
    finally:
        stop.set()
        worker.join()
    assert read_record(layout.results / good.stem) is not None
    assert f"run {bad.stem} cannot be begun or closed and is passed over" in caplog.text
    assert "PATIENT" not in caplog.text
