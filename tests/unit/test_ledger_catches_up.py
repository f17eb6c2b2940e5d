"""Where files and ledger differ, the ledger learns what the files say: whatever was missed, moved, older or damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_node import Node, empty, entry, everything, let_the_disks_clock_go_on, manifest, opened_node, record, work
from ledgers import DATABASES, row_of, rows_of
from m3node.delivery.entry import Entry, to_json
from m3node.delivery.outbox import box_of
from m3node.delivery.state import DeliveryState
from m3node.jobs.answer.rejections import record_rejection
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.files import read_entry, read_rejection
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.sync import catch_up, sync
from m3node.jobs.ledger.tables import Delivery, Run
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings


@pytest.fixture(params=DATABASES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with opened_node(tmp_path / "data", url) as node:
        yield node


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Node]:
    """On SQLite, where the database does not matter."""
    with opened_node(tmp_path / "data") as node:
        yield node


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
