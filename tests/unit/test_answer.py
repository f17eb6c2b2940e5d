"""What a worker's steps leave for a manifest: objects or a reason, once, however often they are repeated."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from answering import Handed, answered, made_bench, made_generation, run_of, worked
from m3node.delivery.outbox import box_of, waiting
from m3node.errors import DeliveryError
from m3node.intake.series.manifest import Manifest, read_manifest
from m3node.jobs.answer import closing, starts
from m3node.jobs.answer.record import read_record
from m3node.jobs.engine import work
from m3node.jobs.engine.bench import Abandoned, Bench
from m3node.jobs.engine.work import work_on
from m3node.progress import Progress
from m3node.rejection import Reason
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind
from m3node.results.store import load_findings
from m3node.settings import Destination, Settings
from m3node.settings.jobs import JobSettings

ARCHIVE = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=104)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return made_bench(Settings(data_dir=tmp_path))


@pytest.fixture
def sending(tmp_path: Path) -> Bench:
    return made_bench(Settings(data_dir=tmp_path, destinations=(ARCHIVE,)))


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("rename", ["", "ab12"], ids=["same label", "label changed"])
def test_a_newer_generation_cancels_what_waits_and_names_its_predecessor(sending: Bench, rename: str) -> None:
    first = made_generation(sending.layout, 10)
    older = answered(sending, first)
    assert older.outcome is Outcome.NO_LIVER
    waiting = sending.layout.outbox / "archive"
    assert {path.name for path in waiting.glob("*.json")} == {
        f"{run_of(first)}.{item.kind.value}.json" for item in older.objects
    }
    second = made_generation(sending.layout, 12, 2, first, rename=rename)
    newer = answered(sending, second)
    assert {path.name.split(".g")[1][0] for path in waiting.glob("*.json")} == {"2"}
    cancelled = list((waiting / "aside").glob("*.json"))
    assert len(cancelled) == len(older.objects)
    assert all(f"superseded by {run_of(second)}" in path.read_text() for path in cancelled)
    before, after = ({item.kind: item for item in run.objects}[ObjectKind.REPORT] for run in (older, newer))
    named = [
        sop.ReferencedSOPInstanceUID
        for study in pydicom.dcmread(after.path).PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]
    assert before.sop_instance_uid in named
    assert after.series_instance_uid != before.series_instance_uid


def test_a_generation_that_was_superseded_before_it_began_is_closed_without_objects(bench: Bench) -> None:
    first = made_generation(bench.layout, 10)
    second = made_generation(bench.layout, 12, 2, first)
    record = answered(bench, first)
    assert (record.superseded_by, record.objects, record.started_at) == (second.key, (), 0.0)


def test_a_generation_takes_back_what_waits_of_the_last_that_was_answered_when_none_between_them_began(
    sending: Bench,
) -> None:
    first = made_generation(sending.layout, 10)
    assert answered(sending, first).objects
    second = made_generation(sending.layout, 11, 2, first)
    third = made_generation(sending.layout, 12, 3, second)
    assert answered(sending, second).superseded_by == third.key
    box = box_of(sending.layout, "archive")
    assert {entry.run for entry in waiting(box)} == {run_of(first)}
    assert answered(sending, third).objects
    assert {entry.run for entry in waiting(box)} == {run_of(third)}
    reasons = {json.loads(path.read_text())["last_error"] for path in box.aside.glob("*.json")}
    assert reasons == {f"superseded by {run_of(third)}"}


def test_a_generation_waits_for_the_one_before_it_that_is_under_way(bench: Bench) -> None:
    first = made_generation(bench.layout, 10)
    assert work_on(bench, "assemble", run_of(first)) == {}
    second = made_generation(bench.layout, 12, 2, first)
    assert worked(bench, run_of(second))["waits"] == f"{run_of(first)} goes first"
    third = made_generation(bench.layout, 11, 3, second)
    assert worked(bench, run_of(third))["waits"] == f"{run_of(first)} goes first"
    for step in ("detect", "build", "close"):
        assert "waits" not in work_on(bench, step, run_of(first))
    assert answered(bench, third).supersedes == second.key


def test_what_is_done_again_leaves_every_byte_as_it_was(sending: Bench) -> None:
    manifest = made_generation(sending.layout, 10)
    record = answered(sending, manifest)
    folder = sending.layout.results / run_of(manifest)
    assert record.started_at > 0
    assert record.worker == "slot-0"
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    assert set(before) == {"findings.json", "overlay.png", "run.json"} | {item.path.name for item in record.objects}
    (folder / "run.json").unlink()
    again = answered(sending, manifest)
    assert replace(again, started_at=record.started_at, finished_at=record.finished_at) == record
    del before["run.json"]
    assert {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in before} == before
    assert len(list((sending.layout.outbox / "archive").glob("*.json"))) == len(record.objects)


def test_deliveries_are_handed_over_or_wait_in_the_outbox_for_the_reconciler(sending: Bench) -> None:
    dispatcher = sending.dispatcher
    assert isinstance(dispatcher, Handed)
    dispatcher.away = True
    manifest = made_generation(sending.layout, 10)
    record = answered(sending, manifest)
    waiting = {path.stem for path in (sending.layout.outbox / "archive").glob("*.json")}
    assert len(waiting) == len(record.objects) > 0
    dispatcher.away = False
    work_on(sending, "close", run_of(manifest))
    assert {entry.name for entry in dispatcher.entries} == waiting


def test_a_slice_that_is_gone_gives_a_reason_and_no_objects(bench: Bench) -> None:
    manifest = made_generation(bench.layout, 10)
    (bench.layout.spool / "series" / "0003.dcm").unlink()
    record = answered(bench, manifest)
    assert record.outcome is Outcome.REJECTED
    rejection = load_findings(bench.layout.results / run_of(manifest)).rejection
    assert rejection is not None
    assert rejection.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("step", ["assemble", "find", "build", "close"])
def test_a_full_disk_lets_the_run_wait_and_is_not_counted_against_it(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_generation(bench.layout, 10)
    with monkeypatch.context() as disk:
        disk.setattr(work, step, full)
        for _ in range(2 * bench.settings.jobs.poison_limit):
            words = worked(bench, run_of(manifest))
            assert words["waits"] == "No space left on device"
            assert words["delay"] == bench.settings.jobs.retry_seconds
    assert answered(bench, manifest).outcome is Outcome.NO_LIVER


def test_a_step_that_took_its_worker_down_is_set_aside_and_what_was_found_before_is_kept(tmp_path: Path) -> None:
    bench = made_bench(Settings(data_dir=tmp_path, jobs=JobSettings(poison_limit=2)))
    manifest = made_generation(bench.layout, 10)
    run = run_of(manifest)
    for step in ("assemble", "detect"):
        assert work_on(bench, step, run) == {}
    for _ in range(2):
        starts.begin(bench.layout.results / run, "build", 2)  # and the worker dies
    record = answered(bench, manifest)
    assert record.outcome is Outcome.NO_LIVER
    assert record.objects == ()
    assert "the worker died 2 times in step build" in record.failure


def test_a_close_that_took_its_worker_down_is_tried_with_what_is_left_of_it(sending: Bench) -> None:
    manifest = made_generation(sending.layout, 10)
    run = run_of(manifest)
    for step in ("assemble", "detect", "build"):
        assert work_on(sending, step, run) == {}
    for _ in range(3):
        starts.begin(sending.layout.results / run, "close", 3)
    work_on(sending, "close", run)
    record = read_record(sending.layout.results / run)
    assert record is not None
    assert record.objects == ()
    assert "the worker died 3 times in step close" in record.failure


def test_a_run_that_a_person_cancelled_ends_at_its_next_step_or_in_the_midst_of_one(sending: Bench) -> None:
    manifest = made_generation(sending.layout, 10)
    folder = sending.layout.results / run_of(manifest)
    assert work_on(sending, "assemble", run_of(manifest)) == {}
    starts.ask_to_cancel(folder, "not wanted")
    record = answered(sending, manifest)
    assert (record.cancelled, record.objects) == ("not wanted", ())
    assert list(folder.glob("*.dcm")) == []
    assert not (sending.layout.outbox / "archive").exists()


@pytest.mark.parametrize("step", ["build", "close"])
def test_a_wish_to_cancel_that_comes_late_still_counts(sending: Bench, step: str) -> None:
    manifest = made_generation(sending.layout, 10)
    folder = sending.layout.results / run_of(manifest)
    for before in ("assemble", "detect", "build")[: 2 if step == "build" else 3]:
        assert work_on(sending, before, run_of(manifest)) == {}
    starts.ask_to_cancel(folder, "not wanted")
    words = work_on(sending, step, run_of(manifest))
    if step == "build":
        work_on(sending, "close", run_of(manifest), words["end"])
    record = read_record(folder)
    assert record is not None
    assert (record.cancelled, record.objects) == ("not wanted", ())
    assert not (sending.layout.outbox / "archive").exists()


def test_a_wish_that_comes_while_the_record_is_written_takes_the_deliveries_back(
    sending: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_generation(sending.layout, 10)
    folder = sending.layout.results / run_of(manifest)

    def at_the_last_moment(point: str) -> None:
        if point == "close.inside":
            starts.ask_to_cancel(folder, "not wanted")

    monkeypatch.setattr(closing, "fault_point", at_the_last_moment)
    assert answered(sending, manifest).objects
    box = box_of(sending.layout, "archive")
    assert waiting(box) == ()
    assert {json.loads(path.read_text())["last_error"] for path in box.aside.glob("*.json")} == {"not wanted"}
    assert not (folder / "cancel").exists()


def test_a_step_whose_time_is_over_is_left_and_begun_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = made_generation(bench.layout, 10)
    run = run_of(manifest)
    assert work_on(bench, "assemble", run) == {}

    def long(
        _manifest: object, _folder: object, _settings: object, _detector: object, tell: Progress, **_: object
    ) -> None:
        tell("looking", 1, 10)
        bench.stop(0)
        tell("looking", 2, 10)

    with monkeypatch.context() as finding:
        finding.setattr(work, "find", long)
        with pytest.raises(Abandoned):
            work_on(bench, "detect", run)
    with pytest.raises(Abandoned):
        bench.between_steps()
    assert not (bench.layout.results / run / "starts").exists()
    assert answered(made_bench(bench.settings), manifest).outcome is Outcome.NO_LIVER


def test_the_volume_is_read_once_and_let_go_when_nobody_needs_it_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_generation(bench.layout, 10)
    run = run_of(manifest)
    read: list[str] = []
    assemble = work.assemble

    def counted(manifest: Manifest, *, progress: Progress) -> object:
        read.append(manifest.key)
        return assemble(manifest, progress=progress)

    monkeypatch.setattr(work, "assemble", counted)
    with bench.job("job"):
        work_on(bench, "assemble", run)
        assert bench.volume_of(run) is not None
        assert bench.volume_of("another run") is None
        work_on(bench, "detect", run)
        assert bench.volume_of(run) is None
    assert read == [manifest.key]
    with bench.job("job"):
        other = run_of(made_generation(bench.layout, 11, 2))
        work_on(bench, "assemble", other)
    assert bench.volume_of(other) is None  # however the job ended


def test_a_damaged_record_of_an_earlier_generation_costs_only_what_it_says(bench: Bench) -> None:
    first = made_generation(bench.layout, 10)
    folder = bench.layout.results / run_of(first)
    folder.mkdir()
    (folder / "run.json").write_text('{"objects": [{}]}')
    assert answered(bench, made_generation(bench.layout, 12, 2, first)).outcome is Outcome.NO_LIVER


def test_a_sibling_of_another_version_does_not_hold_a_run_up(bench: Bench) -> None:
    manifest = made_generation(bench.layout, 10)
    path = bench.layout.manifests / manifest.file_name
    tree = json.loads(path.read_text())
    other = bench.layout.manifests / f"{tree['stack'][0]}.g2.json"
    other.write_text(json.dumps({**tree, "format": "m3node.manifest/0"}))
    assert answered(bench, manifest).outcome is Outcome.NO_LIVER


def test_damaged_findings_close_their_run_with_a_reason(bench: Bench) -> None:
    manifest = made_generation(bench.layout, 10)
    folder = bench.layout.results / run_of(manifest)
    folder.mkdir()
    (folder / "findings.json").write_text('{"schema": ')
    record = answered(bench, manifest)
    assert "findings.json is damaged" in record.failure
    assert record.objects == ()


def test_a_run_that_cannot_be_closed_as_it_was_ends_with_the_reason(
    sending: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = made_generation(sending.layout, 10)

    def refuse(*_: object, **__: object) -> None:
        raise DeliveryError("an object lies outside the data folder", retryable=False)

    monkeypatch.setattr(closing, "enqueue", refuse)
    record = answered(sending, manifest)
    assert record.outcome is Outcome.NO_LIVER
    assert record.objects == ()
    assert record.failure == "an object lies outside the data folder"


def test_a_damaged_manifest_is_passed_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (bench.layout.manifests / "1.2.g1.json").write_text("{}")
    assert "over" in worked(bench, "1.2.g1")
    assert "run 1.2.g1 cannot be begun and is passed over" in caplog.text


def test_an_error_that_nobody_foresaw_becomes_a_reason_without_its_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = made_generation(bench.layout, 10)

    def fail(*_: object, **__: object) -> None:
        raise LookupError("PATIENT^NAME")

    monkeypatch.setattr(work, "find", fail)
    record = answered(bench, manifest)
    assert record.rejection is not None
    assert "LookupError" in record.rejection.message
    assert "PATIENT" not in caplog.text + (bench.layout.results / run_of(manifest) / "run.json").read_text()
    assert read_manifest(bench.layout.manifests / manifest.file_name) == manifest
