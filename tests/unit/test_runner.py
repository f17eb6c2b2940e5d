"""The worker's queue is the files themselves."""

from __future__ import annotations

import os
from pathlib import Path

from m3node.jobs.record import RunRecord, read_record, write_record
from m3node.jobs.runner import CRASH_LIMIT, Queue, _crashed
from m3node.layout import DataLayout
from m3node.rejection import Reason
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject


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
    return RunRecord("1.2", 1, "k", "1.1", "1.2", Outcome.NO_LESION, 0, objects, "", "")


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
    record = _record(tmp_path, item)
    write_record(record, tmp_path)
    assert read_record(tmp_path) == record
    assert read_record(tmp_path / "elsewhere") is None


def test_a_run_that_took_its_worker_down_again_and_again_is_set_aside(tmp_path: Path) -> None:
    for _ in range(CRASH_LIMIT):
        assert _crashed(tmp_path, "1.2.g1") is None
    rejection = _crashed(tmp_path, "1.2.g1")
    assert rejection is not None
    assert rejection.reason is Reason.FAILED
    assert "1.2.g1" in rejection.message


def test_starts_under_another_supervisor_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "starts").write_text(f"{os.getppid() + 1}\n" * CRASH_LIMIT)
    assert _crashed(tmp_path, "1.2.g1") is None
