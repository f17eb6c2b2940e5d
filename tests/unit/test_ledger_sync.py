"""The ledger made from the files is the ledger that the notes made, at any time and as often as one likes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from ledgers import DATABASES, opened_ledger, put_received, row_of, rows_of
from m3node.delivery.entry import Entry, to_json
from m3node.delivery.outbox import box_of
from m3node.delivery.state import DeliveryState
from m3node.errors import DatabaseError, M3NodeError
from m3node.intake.keeper.index import (
    Index,
    RejectedGeneration,
    Settled,
    header_line,
    own_line,
    purged_line,
    refused_line,
    rejected_line,
    seg_line,
    settled_line,
)
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, SliceRef, StackKey, read_manifest, write_manifest
from m3node.jobs.answer.record import RunRecord, write_record
from m3node.jobs.answer.rejections import record_rejection
from m3node.jobs.ledger.database import open_engine, writing
from m3node.jobs.ledger.files import read_entry, read_manifest_facts, read_rejection, read_series
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.rows import ManifestFacts
from m3node.jobs.ledger.states import SeriesState
from m3node.jobs.ledger.sync import SyncReport, catch_up, sync
from m3node.jobs.ledger.tables import Delivery, Instance, Mark, Object, Run, Series, Study
from m3node.jobs.ledger.upsert import upsert
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import Settings
from made_headers import HEADER
from waiting import wait_for

TABLES = (Study, Series, Instance, Run, Object, Delivery)
TILTED = Rejection(Reason.TILTED, "tilted by 12 degrees", "1.4")


def header(series: str, number: int) -> InstanceHeader:
    return replace(
        HEADER,
        path=f"1.1/{series}/{number}.dcm",
        sop_instance_uid=f"{series}.{number}",
        series_instance_uid=series,
        received_at=10.0 * int(series.rpartition(".")[2]) + number,
    )


def manifest(series: str, generation: int = 1, *, supersedes: str = "", stack: str = "") -> Manifest:
    return Manifest(
        key=f"key of {series} {stack} {generation}",
        stack=StackKey(series, stack),
        generation=generation,
        supersedes=supersedes,
        root='/spool ","instances":["',
        instances=(header(series, 0), header(series, 1)),
        slices=(SliceRef(0, 0), SliceRef(1, 0)),
        liver_segs=(header(series, 9),),
        senders=('A","senders":["', "PACS"),
        priority="stat",
        created_at=20.25,
    )


def record(of: Manifest, **changes: Any) -> RunRecord:
    run = of.file_name.removesuffix(".json")
    item = ResultObject(ObjectKind.REPORT, Path(run, "report.sr.dcm"), "ab", "1.5", f"9.{run}", "1.7", "1.1")
    full = RunRecord(
        label=of.stack.label,
        generation=of.generation,
        manifest_key=of.key,
        study_instance_uid="1.1",
        series_instance_uid=of.stack.series_instance_uid,
        outcome=Outcome.LESIONS,
        lesions=2,
        objects=(item,),
        supersedes=of.supersedes,
        superseded_by="",
        failure="",
        started_at=30.5,
        finished_at=40.5,
        worker="0",
    )
    return replace(full, **changes)


def entry(destination: str, run: str, **changes: Any) -> Entry:
    full = Entry(
        name=f"{run}.report.sr",
        destination=destination,
        run=run,
        kind="report.sr",
        order=1,
        path=f"results/{run}/report.sr.dcm",
        sha256="ab",
        sop_class_uid="1.5",
        sop_instance_uid=f"9.{run}",
        study_instance_uid="1.1",
        queued_at=40.5,
    )
    return replace(full, **changes)


class Node:
    """Does to the files what the roles do, and notes it as they do."""

    def __init__(self, layout: DataLayout, ledger: Ledger) -> None:
        self.layout = layout
        self.ledger = ledger

    def receive(self, series: str, *, settled: bool = True) -> None:
        headers = [header(series, 0), header(series, 1)]
        facts = [header_line(item) for item in headers]
        Index(self.layout.index).append(series, [*facts, *([settled_line(Settled(2, unfit=False))] if settled else [])])
        state = SeriesState.ANSWERED if settled else SeriesState.RECEIVING
        first, last = (item.received_at for item in headers)
        put_received(self.ledger, series, "1.1", state=state, first=first, last=last, headers=headers)

    def announce(self, made: Manifest) -> None:
        write_manifest(made, self.layout.manifests)
        self.ledger.note_manifest(made)

    def end(self, ended: RunRecord) -> Path:
        run = f"{ended.label}.g{ended.generation}"
        folder = self.layout.results / run
        folder.mkdir(exist_ok=True)
        self.ledger.note_started(run, "0")
        written = write_record(ended, folder)
        self.ledger.note_record(written, run=run, finished_at=written.finished_at)
        return folder

    def reject(self, key: StackKey, generation: int, rejection: Rejection) -> None:
        folder = record_rejection(self.layout, key, generation, "d" * 64, rejection)
        found, at = read_rejection(folder)
        self.ledger.note_rejected(key, folder.name, "1.1", found, at)

    def deliver(self, item: Entry, filed: str = "") -> Path:
        box = box_of(self.layout, item.destination)
        box.create()
        path = box.folder / filed / f"{item.name}.json"
        path.write_bytes(to_json(item))
        self.ledger.note_entry(item)
        return path


def work(node: Node) -> None:
    """A bit of everything."""
    for series in ("1.2", "1.3", "1.4", "1.5", "1.4.7"):
        node.receive(series)
    node.receive("1.6", settled=False)
    first, second = manifest("1.2"), manifest("1.2", 2, supersedes="key of 1.2  1")
    for made in (first, second, manifest("1.3"), manifest("1.5", stack="0badcafe")):
        node.announce(made)
    node.end(record(first))
    node.end(record(second, outcome=None, superseded_by="another", objects=()))
    failed = Rejection(Reason.FAILED, "the detector failed", "1.3.g1")
    node.end(record(manifest("1.3"), outcome=Outcome.REJECTED, rejection=failed, objects=()))
    node.reject(StackKey("1.4", ""), 1, TILTED)
    node.reject(StackKey("1.4", "12345678"), 2, TILTED)
    node.reject(StackKey("1.4.7", ""), 1, TILTED)
    node.reject(StackKey("1.2", ""), 0, Rejection(Reason.NOT_CT, "no CT image", "1.2"))
    node.deliver(entry("pacs", "1.2.g1", state=DeliveryState.SENT, finished_at=41.5, stored_at=41.5), "sent")
    node.deliver(entry("archive", "1.2.g1", state=DeliveryState.RETRYING, attempts=2, not_before=50.5))
    node.deliver(entry("dead", "1.2.g1", state=DeliveryState.DEAD, last_error="refused", finished_at=42.5), "aside")


def everything(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    return {kind.__tablename__: rows_of(ledger, kind) for kind in TABLES}


def let_the_disks_clock_go_on(node: Node, until: float = 0.0) -> None:
    """Have all that is done from now on be told later than all that was done before, and than a time."""
    clock = node.layout.locks / "clock"
    clock.touch()
    before = max(clock.stat().st_ctime, until)

    def is_later() -> bool:
        os.utime(clock)
        return clock.stat().st_ctime > before

    wait_for(is_later)


def empty(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        for kind in TABLES:
            connection.execute(text(f'DELETE FROM "{kind.__tablename__}"'))
        connection.execute(text("DELETE FROM mark"))


@pytest.fixture(params=DATABASES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with opened_ledger(Settings(data_dir=tmp_path / "data", database_url=url)) as ledger:
        yield Node(DataLayout(tmp_path / "data"), ledger)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Node]:
    """On SQLite, where the database does not matter."""
    with opened_ledger(Settings(data_dir=tmp_path / "data")) as ledger:
        yield Node(DataLayout(tmp_path / "data"), ledger)


def test_a_ledger_that_was_lost_is_made_again_as_it_was(node: Node) -> None:
    work(node)
    noted = everything(node.ledger)
    assert {len(rows) for rows in noted.values()} == {1, 6, 12, 8, 3}
    empty(node.ledger)
    report = sync(node.layout, node.ledger)
    assert everything(node.ledger) == noted
    assert report == SyncReport(series=6, manifests=4, runs=7, deliveries=3)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_it_does_not_matter_in_how_many_batches_it_is_made(
    lite: Node, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.BATCH", batch)
    work(lite)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    sync(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted
    for series in ("1.7", "1.8", "1.9"):
        lite.announce(manifest(series))
        lite.deliver(entry("pacs", f"{series}.g1"))
    shutil.rmtree(lite.layout.outbox)
    for path in lite.layout.manifests.iterdir():
        path.unlink()
    sync(lite.layout, lite.ledger)
    assert {row["state"] for row in rows_of(lite.ledger, Delivery)} == {"sent", "dead"}
    assert "queued" not in {row["state"] for row in rows_of(lite.ledger, Run)}


@pytest.mark.parametrize("follow", [sync, catch_up])
def test_following_the_files_of_a_ledger_that_is_right_changes_nothing(node: Node, follow: Any) -> None:
    work(node)
    noted = everything(node.ledger)
    for _ in range(2):
        follow(node.layout, node.ledger)
        assert everything(node.ledger) == noted


def test_what_changed_since_the_last_pass_is_all_that_is_read(lite: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    work(lite)
    let_the_disks_clock_go_on(lite)
    assert catch_up(lite.layout, lite.ledger).series == 6
    assert catch_up(lite.layout, lite.ledger) == SyncReport()
    lite.receive("1.7")
    lite.announce(manifest("1.7"))
    lite.end(record(manifest("1.7")))
    lite.deliver(entry("pacs", "1.7.g1"))
    let_the_disks_clock_go_on(lite)
    assert catch_up(lite.layout, lite.ledger) == SyncReport(series=1, manifests=1, runs=1, deliveries=1)
    assert catch_up(lite.layout, lite.ledger) == SyncReport()


def test_what_changes_while_a_pass_reads_is_read_by_the_next_one(lite: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    work(lite)
    let_the_disks_clock_go_on(lite)

    def meanwhile(stage: str, *_: int) -> None:
        if stage == "outbox":
            Index(lite.layout.index).append("1.7", [header_line(header("1.7", 0))])
            let_the_disks_clock_go_on(lite)

    sync(lite.layout, lite.ledger, progress=meanwhile)
    let_the_disks_clock_go_on(lite)
    assert catch_up(lite.layout, lite.ledger) == SyncReport(series=1)
    assert "1.7" in {row["series_instance_uid"] for row in rows_of(lite.ledger, Series)}


def test_a_change_that_is_told_a_tick_before_the_last_pass_is_read(lite: Node) -> None:
    lite.receive("1.7")
    told = (lite.layout.index / "1.7.jsonl").stat().st_ctime + 0.01
    let_the_disks_clock_go_on(lite, told)
    with writing(lite.ledger.engine) as connection:
        upsert(connection, Mark, [{"name": "files", "at": told}])
    assert catch_up(lite.layout, lite.ledger) == SyncReport(series=1)


def test_what_a_pass_did_not_come_to_is_read_by_the_next_one(lite: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    work(lite)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    let_the_disks_clock_go_on(lite)

    def refuse(*_: object) -> None:
        raise DatabaseError("the database cannot be used")

    with monkeypatch.context() as broken:
        broken.setattr("m3node.jobs.ledger.sync.put_records", refuse)
        with pytest.raises(DatabaseError):
            catch_up(lite.layout, lite.ledger)
    catch_up(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted


def test_an_entry_that_is_filed_while_it_is_read_stops_nothing_and_is_read_where_it_lies(
    lite: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = lite.deliver(entry("pacs", "1.2.g1", attempts=1))
    lite.deliver(entry("pacs", "1.3.g1"))
    empty(lite.ledger)

    def filed_meanwhile(path: Path, filed: str) -> Entry:
        if path == waits:
            sent = entry("pacs", "1.2.g1", state=DeliveryState.SENT, finished_at=41.5)
            (path.parent / "sent" / path.name).write_bytes(to_json(sent))
            path.unlink()
        return read_entry(path, filed)

    with monkeypatch.context() as racing:
        racing.setattr("m3node.jobs.ledger.sync.read_entry", filed_meanwhile)
        sync(lite.layout, lite.ledger)
    assert [row["run"] for row in rows_of(lite.ledger, Delivery)] == ["1.3.g1"]
    catch_up(lite.layout, lite.ledger)
    assert {row["run"]: row["state"] for row in rows_of(lite.ledger, Delivery)} == {
        "1.2.g1": "sent",
        "1.3.g1": "waiting",
    }


def test_a_note_that_comes_after_that_of_the_end_does_not_hide_it_for_ever(
    lite: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    cancelled = entry("pacs", "1.2.g1", state=DeliveryState.CANCELLED, finished_at=41.5)
    lite.deliver(cancelled, "aside")
    let_the_disks_clock_go_on(lite)
    catch_up(lite.layout, lite.ledger)
    lite.ledger.note_entry(entry("pacs", "1.2.g1", state=DeliveryState.RETRYING, failing_since=40.5))
    let_the_disks_clock_go_on(lite)
    catch_up(lite.layout, lite.ledger)
    row = row_of(lite.ledger, Delivery)
    assert (row["state"], row["failing_since"], row["finished_at"]) == ("cancelled", None, 41.5)


def test_nothing_is_missed_when_the_clock_was_set_back(lite: Node) -> None:
    catch_up(lite.layout, lite.ledger)
    with writing(lite.ledger.engine) as connection:
        connection.execute(update(Mark).values(at=Mark.at + 3600.0))
    lite.receive("1.7")
    assert catch_up(lite.layout, lite.ledger).series == 1


def test_what_a_database_does_not_take_is_noted_as_it_can_be(node: Node) -> None:
    odd = entry("pacs", "1.2.g1", last_error="what\0 a \ud800 peer says", attempts=10**30)
    node.deliver(odd)
    sync(node.layout, node.ledger)
    row = row_of(node.ledger, Delivery)
    assert (row["last_error"], row["attempts"]) == ("what  a ? peer says", 2**31 - 1)


def test_what_no_role_could_note_is_caught_up(lite: Node) -> None:
    work(lite)
    catch_up(lite.layout, lite.ledger)
    elsewhere = Ledger(open_engine(Settings(database_url="postgresql://127.0.0.1:1/away")))
    silent = Node(lite.layout, elsewhere)
    silent.end(record(manifest("1.5", stack="0badcafe")))
    box = box_of(lite.layout, "archive")
    waiting = box.file("1.2.g1.report.sr")
    sent = entry("archive", "1.2.g1", state=DeliveryState.CONFIRMED, attempts=3, stored_at=60.5, finished_at=61.5)
    silent.deliver(sent, "sent")
    waiting.unlink()
    catch_up(lite.layout, lite.ledger)
    caught_up = everything(lite.ledger)
    states = {row["run"]: row["state"] for row in caught_up["run"]}
    assert states["1.5.0badcafe.g1"] == "done"
    deliveries = {row["destination"]: row["state"] for row in caught_up["delivery"]}
    assert deliveries == {"pacs": "sent", "archive": "confirmed", "dead": "dead"}
    empty(lite.ledger)
    sync(lite.layout, lite.ledger)
    assert everything(lite.ledger)["delivery"] == caught_up["delivery"]


def test_a_run_whose_record_was_moved_aside_is_queued_again(lite: Node) -> None:
    made = manifest("1.3")
    lite.announce(made)
    queued = row_of(lite.ledger, Run)
    folder = lite.end(record(made, failure="no objects", objects=()))
    assert row_of(lite.ledger, Run)["state"] == "failed"
    (folder / "run.json").rename(folder / "run.failed-1.json")
    catch_up(lite.layout, lite.ledger)
    assert row_of(lite.ledger, Run) == queued


def test_a_run_that_works_is_left_to_its_worker(lite: Node) -> None:
    lite.announce(manifest("1.3"))
    (lite.layout.results / "1.3.g1").mkdir()
    lite.ledger.note_started("1.3.g1", "0")
    lite.ledger.note_stage("1.3.g1", "detect", 1, 2)
    running = row_of(lite.ledger, Run)
    sync(lite.layout, lite.ledger)
    assert row_of(lite.ledger, Run) == running


def test_what_waits_without_a_file_is_gone_but_what_ended_is_remembered(lite: Node) -> None:
    work(lite)
    for path in (lite.layout.manifests / "1.5.0badcafe.g1.json", lite.layout.manifests / "1.2.g1.json"):
        path.unlink()
    shutil.rmtree(lite.layout.outbox)
    sync(lite.layout, lite.ledger)
    runs = {row["run"] for row in rows_of(lite.ledger, Run)}
    assert "1.5.0badcafe.g1" not in runs
    assert "1.2.g1" in runs
    assert {row["destination"] for row in rows_of(lite.ledger, Delivery)} == {"pacs", "dead"}


def test_a_dead_letter_that_a_person_moved_back_up_waits_again(lite: Node) -> None:
    dead = lite.deliver(entry("pacs", "1.2.g1", state=DeliveryState.DEAD, finished_at=41.5), "aside")
    os.utime(dead, (41.5, 41.5))  # moving it leaves the time of its content as it was
    catch_up(lite.layout, lite.ledger)
    assert row_of(lite.ledger, Delivery)["state"] == "dead"
    dead.rename(dead.parent.parent / dead.name)
    catch_up(lite.layout, lite.ledger)
    row = row_of(lite.ledger, Delivery)
    assert (row["state"], row["finished_at"]) == ("waiting", None)


def test_an_entry_that_waits_and_is_filed_counts_as_filed(lite: Node) -> None:
    sent = entry("pacs", "1.2.g1", state=DeliveryState.SENT, finished_at=41.5)
    lite.deliver(sent, "sent")
    lite.deliver(entry("pacs", "1.2.g1"))
    sync(lite.layout, lite.ledger)
    assert row_of(lite.ledger, Delivery)["state"] == "sent"


@pytest.mark.parametrize(
    ("filed", "error", "state"),
    [("sent", "", "sent"), ("aside", "superseded by 1.2.g2", "cancelled"), ("aside", "refused", "dead")],
)
def test_where_an_older_release_filed_an_entry_says_its_state(lite: Node, filed: str, error: str, state: str) -> None:
    path = lite.deliver(entry("pacs", "1.2.g1", last_error=error, finished_at=41.5), filed)
    tree = json.loads(path.read_text())
    del tree["state"]
    path.write_text(json.dumps(tree))
    sync(lite.layout, lite.ledger)
    assert row_of(lite.ledger, Delivery)["state"] == state


def test_a_record_of_an_older_release_takes_reason_and_time_from_the_findings(lite: Node) -> None:
    made = manifest("1.3")
    lite.announce(made)
    folder = lite.end(record(made, outcome=Outcome.REJECTED, objects=()))
    record_rejection(lite.layout, made.stack, 1, made.key, Rejection(Reason.FAILED, "it failed", "1.3"))
    tree = json.loads((folder / "run.json").read_text())
    for name in ("rejection", "cancelled", "started_at", "finished_at", "worker"):
        del tree[name]
    (folder / "run.json").write_text(json.dumps(tree))
    _, at = read_rejection(folder)
    sync(lite.layout, lite.ledger)
    row = row_of(lite.ledger, Run)
    assert (row["state"], row["message"], row["finished_at"]) == ("failed", "it failed", at)


def test_a_record_of_an_older_release_that_says_no_time_has_that_of_its_file(lite: Node) -> None:
    made = manifest("1.3")
    lite.announce(made)
    path = lite.end(record(made)) / "run.json"
    tree = json.loads(path.read_text())
    for name in ("rejection", "cancelled", "started_at", "finished_at", "worker"):
        del tree[name]
    path.write_text(json.dumps(tree))
    os.utime(path, (77.5, 77.5))
    empty(lite.ledger)
    sync(lite.layout, lite.ledger)
    row = row_of(lite.ledger, Run)
    assert (row["state"], row["started_at"], row["finished_at"]) == ("done", None, 77.5)


def test_damaged_files_are_named_and_cost_only_themselves(lite: Node) -> None:
    work(lite)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    (lite.layout.manifests / "1.8.g1.json").write_text("{}")
    (lite.layout.outbox / "pacs" / "odd.json").write_text("[")
    (lite.layout.outbox / "pacs" / "other.json").write_bytes(to_json(entry("pacs", "1.2.g1")))
    (lite.layout.index / "1.8.jsonl").write_text("\0\0\0\n")
    (lite.layout.results / "1.8.g1").mkdir()
    (lite.layout.results / "1.8.g1" / "run.json").write_text('{"label": 1}')
    (lite.layout.results / "1.9.g1").mkdir()
    (lite.layout.results / "1.9.g1" / "findings.json").write_text("{}")
    (lite.layout.results / "begun.g1").mkdir()
    report = sync(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted
    named = " ".join(report.damaged)
    assert [name in named for name in ("1.8.g1.json", "run 1.8.g1", "1.9.g1", "other.json")] == [True] * 4
    assert len(report.damaged) == 5


def test_a_database_that_is_away_ends_the_pass_and_the_next_one_follows_all(lite: Node) -> None:
    work(lite)
    away = Ledger(open_engine(Settings(database_url="postgresql://127.0.0.1:1/away")))
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/away cannot be used"):
        catch_up(lite.layout, away)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    catch_up(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted


def test_progress_is_told_to_the_end(lite: Node) -> None:
    work(lite)
    told: list[tuple[str, int, int]] = []
    sync(lite.layout, lite.ledger, progress=lambda *step: told.append(step))
    assert ("index", 6, 6) in told
    assert {stage for stage, done, total in told if done == total} == {stage for stage, _, _ in told}


def test_a_manifest_is_read_quickly_as_it_is_read_in_full(tmp_path: Path) -> None:
    for made in (manifest("1.2"), manifest("1.2", 2, supersedes="k", stack="ab")):
        path = write_manifest(made, tmp_path)
        assert read_manifest_facts(path) == ManifestFacts.of(read_manifest(path))


def test_a_manifest_that_is_written_otherwise_is_read_in_full(tmp_path: Path) -> None:
    path = write_manifest(manifest("1.2"), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert read_manifest_facts(path) == ManifestFacts.of(manifest("1.2"))


@given(st.integers(0, 5000))
def test_a_torn_manifest_is_an_error(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = write_manifest(manifest("1.2"), tmp_path_factory.mktemp("manifests"))
    content = path.read_bytes()
    path.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(M3NodeError):
        read_manifest_facts(path)


def test_the_index_says_where_a_series_stands(tmp_path: Path) -> None:
    index, path = Index(tmp_path), tmp_path / "1.2.jsonl"
    index.append("1.2", [refused_line("1.1/1.2/0.dcm", Rejection(Reason.UNREADABLE, "torn", "0"))])
    facts = read_series(path)
    assert facts is not None
    assert (facts.series["study_instance_uid"], facts.series["instances"]) == ("1.1", 0)
    index.append("1.2", [header_line(header("1.2", 3)), own_line("1.1/1.2/4.dcm"), seg_line(header("1.9", 1))])
    index.append("1.2", [rejected_line(RejectedGeneration("", 1, "d"))])
    facts = read_series(path)
    assert facts is not None
    assert facts.series["state"] is SeriesState.RECEIVING
    index.append("1.2", [settled_line(Settled(3, unfit=False))])
    facts = read_series(path)
    assert facts is not None
    assert facts.series["state"] is SeriesState.ANSWERED
    assert [row["path"] for row in facts.instances] == ["1.1/1.2/3.dcm"]
    assert facts.series["first_received_at"] == facts.series["last_received_at"] == 23.0
    index.append("1.2", [header_line(header("1.2", 4))])
    facts = read_series(path)
    assert facts is not None
    assert (facts.series["state"], facts.series["instances"]) == (SeriesState.RECEIVING, 2)


def test_a_series_whose_pixels_were_removed_is_remembered_with_its_instances(tmp_path: Path) -> None:
    index, path = Index(tmp_path), tmp_path / "1.2.jsonl"
    index.append("1.2", [header_line(header("1.2", number)) for number in range(3)])
    index.append("1.2", [settled_line(Settled(3, unfit=False))])
    index.append("1.2", [purged_line(99.5), settled_line(Settled(0, unfit=False, purged=True))])
    facts = read_series(path)
    assert facts is not None
    assert (facts.series["state"], facts.series["purged_at"]) == (SeriesState.PURGED, 99.5)
    assert (facts.series["instances"], len(facts.instances)) == (3, 3)


def test_a_line_that_a_crash_tore_is_left_to_the_keeper(tmp_path: Path) -> None:
    Index(tmp_path).append("1.2", [header_line(header("1.2", 0)), settled_line(Settled(1, unfit=False))])
    path = tmp_path / "1.2.jsonl"
    with path.open("a") as stream:
        stream.write('{"header": {"pa')
    before = path.read_bytes()
    facts = read_series(path)
    assert facts is not None
    assert facts.series["instances"] == 1
    assert path.read_bytes() == before


def test_two_passes_at_once_do_not_hinder_each_other(node: Node) -> None:
    work(node)
    noted = everything(node.ledger)
    empty(node.ledger)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda follow: follow(node.layout, node.ledger), (sync, catch_up)):
            pass
    assert everything(node.ledger) == noted
