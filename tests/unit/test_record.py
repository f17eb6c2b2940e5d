"""``run.json`` says once what became of a run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from m3node.errors import ResultError
from m3node.jobs.answer.record import RunRecord, read_record, write_record
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject


def _record(*objects: ResultObject) -> RunRecord:
    return RunRecord("1.2", 1, "k", "1.1", "1.2", Outcome.NO_LESION, 0, objects, "", "", "")


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    item = ResultObject(ObjectKind.SEGMENTATION, tmp_path / "segmentation.seg.dcm", "ab", "1.5", "1.6", "1.7", "1.1")
    rejection = Rejection(Reason.FAILED, "no objects could be built", "1.2.g1")
    record = replace(_record(item), rejection=rejection, started_at=7.5, finished_at=9.25, worker="slot-0")
    assert write_record(record, tmp_path) == record
    assert read_record(tmp_path) == record
    assert read_record(tmp_path / "elsewhere") is None


def test_the_first_record_of_a_run_stays_and_says_when_the_run_ended(tmp_path: Path) -> None:
    before = time.time()
    first = write_record(_record(), tmp_path)
    assert before <= first.finished_at <= time.time()
    assert write_record(replace(_record(), lesions=3), tmp_path) == first


def test_a_record_of_an_older_release_has_no_times(tmp_path: Path) -> None:
    write_record(_record(), tmp_path)
    path = tmp_path / "run.json"
    tree = json.loads(path.read_text())
    for name in ("rejection", "cancelled", "started_at", "finished_at", "worker"):
        del tree[name]
    path.write_text(json.dumps(tree))
    assert read_record(tmp_path) == _record()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"objects": [{}]}'])
def test_a_damaged_record_is_said_to_be_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ResultError, match="damaged"):
        read_record(tmp_path)
