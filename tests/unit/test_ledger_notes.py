"""What a role notes is in the ledger, on SQLite and PostgreSQL, and a ledger that is away stops nobody."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledgers import DATABASES, opened_ledger, put_received, row_of, rows_of
from m3node.delivery.state import DeliveryState
from m3node.intake.series.manifest import StackKey
from m3node.jobs.answer.record import RunRecord
from m3node.jobs.ledger import notes
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.notes import Ledger, NoLedger
from m3node.jobs.ledger.tables import Delivery, Instance, Object, Run, Series, Study, Worker
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings
from made_headers import HEADER
from made_runs import run_entry, run_manifest, run_object, run_record
from postgres import PASSWORD

RUN = "1.2.g1"
MANIFEST = run_manifest(key="k1", priority="stat")
OBJECT = run_object(RUN)
RECORD = run_record(MANIFEST, objects=(OBJECT,))
ENTRY = run_entry(RUN)
FAILED = Rejection(Reason.FAILED, "the detector failed", RUN)


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with opened_ledger(Settings(data_dir=tmp_path / "data", database_url=url)) as ledger:
        yield ledger


def test_a_run_goes_from_queued_to_done(ledger: Ledger) -> None:
    assert ledger.note_manifest(MANIFEST)
    queued = row_of(ledger, Run)
    assert (queued["state"], queued["priority"], queued["slices"]) == ("queued", "stat", 1)
    assert (queued["created_at"], queued["started_at"], queued["finished_at"]) == (100.5, None, None)

    before = time.time()
    assert ledger.note_started(RUN, "0")
    assert ledger.note_stage(RUN, "detect", 3, 10)
    running = row_of(ledger, Run)
    assert (running["state"], running["worker"]) == ("running", "0")
    assert (running["stage"], running["done"], running["total"]) == ("detect", 3, 10)
    assert before <= running["started_at"] <= time.time()

    assert ledger.note_record(RECORD, run=RUN, finished_at=103.5)
    done = row_of(ledger, Run)
    assert (done["state"], done["outcome"], done["lesions"]) == ("done", "lesions", 2)
    assert (done["created_at"], done["started_at"], done["finished_at"]) == (100.5, 101.5, 103.5)
    assert (done["stage"], done["done"], done["total"]) == ("", 0, 0)
    assert (done["priority"], done["slices"]) == ("stat", 1)
    assert row_of(ledger, Object) == {
        "sop_instance_uid": f"9.{RUN}",
        "run": RUN,
        "kind": "report.sr",
        "path": "results/1.2.g1/report.sr.dcm",
        "sha256": "ab",
        "sop_class_uid": "1.5",
        "series_instance_uid": "1.7",
        "study_instance_uid": "1.1",
    }


def test_a_manifest_that_is_noted_again_takes_its_run_no_step_back(ledger: Ledger) -> None:
    ledger.note_manifest(MANIFEST)
    ledger.note_record(RECORD, run=RUN, finished_at=103.5)
    done = row_of(ledger, Run)
    ledger.note_manifest(MANIFEST)
    assert row_of(ledger, Run) == done


def test_a_run_that_begins_again_keeps_when_it_began_first(ledger: Ledger) -> None:
    ledger.note_manifest(MANIFEST)
    ledger.note_started(RUN, "0")
    first = row_of(ledger, Run)["started_at"]
    ledger.note_waiting(RUN, "the disk is full")
    assert (row_of(ledger, Run)["state"], row_of(ledger, Run)["message"]) == ("waiting", "the disk is full")
    ledger.note_started(RUN, "1")
    again = row_of(ledger, Run)
    assert (again["state"], again["worker"], again["message"], again["started_at"]) == ("running", "1", "", first)


def test_notes_of_a_running_run_change_nothing_when_it_has_ended(ledger: Ledger) -> None:
    ledger.note_manifest(MANIFEST)
    ledger.note_record(RECORD, run=RUN, finished_at=103.5)
    done = row_of(ledger, Run)
    ledger.note_stage(RUN, "detect", 10, 10)
    ledger.note_started(RUN, "1")
    ledger.note_waiting(RUN, "late")
    assert row_of(ledger, Run) == done


@pytest.mark.parametrize(
    ("record", "state", "reason", "message"),
    [
        (replace(RECORD, outcome=None, superseded_by="k2"), "superseded", "", ""),
        (replace(RECORD, outcome=None, cancelled="by hand"), "cancelled", "", "by hand"),
        (replace(RECORD, rejection=FAILED, failure="no objects"), "failed", "failed", "no objects"),
        (replace(RECORD, outcome=Outcome.REJECTED, rejection=FAILED), "failed", "failed", "the detector failed"),
        (
            replace(RECORD, outcome=Outcome.REJECTED, rejection=Rejection(Reason.UNDECODABLE, "odd", RUN)),
            "rejected",
            "undecodable",
            "odd",
        ),
        (replace(RECORD, outcome=Outcome.INCOMPLETE), "done", "", ""),
    ],
)
def test_the_record_says_what_a_run_ended_as(
    tmp_path: Path, record: RunRecord, state: str, reason: str, message: str
) -> None:
    with opened_ledger(Settings(data_dir=tmp_path)) as ledger:
        ledger.note_manifest(MANIFEST)
        ledger.note_record(record, run=RUN, finished_at=103.5)
        row = row_of(ledger, Run)
    assert (row["state"], row["reason"], row["message"]) == (state, reason, message)


def test_a_run_that_is_requeued_is_as_if_it_had_never_begun(ledger: Ledger) -> None:
    ledger.note_manifest(MANIFEST)
    queued = row_of(ledger, Run)
    failed = replace(RECORD, outcome=Outcome.REJECTED, rejection=FAILED, objects=())
    ledger.note_started(RUN, "0")
    ledger.note_record(failed, run=RUN, finished_at=103.5)
    assert row_of(ledger, Run) != queued
    ledger.note_requeued(RUN)
    assert row_of(ledger, Run) == queued


def test_a_run_that_somebody_else_ended_keeps_when_it_began_and_who_worked_on_it(ledger: Ledger) -> None:
    ledger.note_manifest(MANIFEST)
    ledger.note_started(RUN, "0")
    began = row_of(ledger, Run)["started_at"]
    taken_back = replace(RECORD, outcome=None, cancelled="by hand", objects=(), started_at=0.0, worker="")
    ledger.note_record(taken_back, run=RUN, finished_at=103.5)
    row = row_of(ledger, Run)
    assert (row["state"], row["started_at"], row["worker"]) == ("cancelled", began, "0")


def test_a_stack_that_is_not_fit_is_a_rejected_run_without_a_manifest(ledger: Ledger) -> None:
    key = StackKey("1.2", "0badcafe")
    ledger.note_rejected(key, "1.2.0badcafe.g3", "1.1", Rejection(Reason.TILTED, "tilted by 12 degrees", "1.2"), 50.0)
    row = row_of(ledger, Run)
    assert (row["state"], row["reason"], row["message"]) == ("rejected", "tilted", "tilted by 12 degrees")
    assert (row["outcome"], row["manifest_key"]) == ("rejected", "")
    assert (row["label"], row["generation"], row["manifest_key"]) == ("1.2.0badcafe", 3, "")
    assert (row["series_instance_uid"], row["study_instance_uid"], row["finished_at"]) == ("1.2", "1.1", 50.0)


@pytest.mark.parametrize("order", [("1.2", "1.3", "1.4"), ("1.4", "1.3", "1.2"), ("1.3", "1.4", "1.2")])
def test_a_study_lasts_from_its_first_series_to_its_last(ledger: Ledger, order: tuple[str, ...]) -> None:
    # Of the last one no file could be read.
    times = {"1.2": (20.0, 30.0), "1.3": (10.0, 15.0), "1.4": (0.0, 0.0)}
    for series in order:
        first, last = times[series]
        put_received(ledger, series, "1.1", first=first, last=last)
    assert row_of(ledger, Study) == {
        "study_instance_uid": "1.1",
        "first_received_at": 10.0,
        "last_received_at": 30.0,
    }
    assert [row["series_instance_uid"] for row in rows_of(ledger, Series)] == ["1.2", "1.3", "1.4"]


def test_a_series_that_could_not_be_judged_has_failed_and_is_not_rejected(ledger: Ledger) -> None:
    ledger.note_rejected(StackKey("1.2", ""), "1.2.g0.0123456789ab", "1.1", FAILED, 50.0)
    row = row_of(ledger, Run)
    assert (row["state"], row["reason"], row["message"]) == ("failed", "failed", "the detector failed")
    assert (row["label"], row["generation"]) == ("1.2", 0)


def test_a_delivery_is_noted_as_its_file_says(ledger: Ledger) -> None:
    ledger.note_entry(ENTRY)
    row = row_of(ledger, Delivery)
    assert (row["state"], row["queued_at"]) == ("waiting", 103.5)
    assert (row["failing_since"], row["stored_at"], row["finished_at"]) == (None, None, None)
    retrying = replace(
        ENTRY, state=DeliveryState.RETRYING, attempts=3, last_error="no answer", not_before=9.5, failing_since=7.5
    )
    ledger.note_entry(retrying)
    row = row_of(ledger, Delivery)
    assert (row["state"], row["attempts"], row["last_error"]) == ("retrying", 3, "no answer")
    assert (row["next_at"], row["failing_since"]) == (9.5, 7.5)
    ledger.note_entry(replace(ENTRY, state=DeliveryState.CONFIRMED, stored_at=10.5, finished_at=11.5))
    row = row_of(ledger, Delivery)
    assert (row["state"], row["stored_at"], row["finished_at"]) == ("confirmed", 10.5, 11.5)


def test_a_slot_belongs_to_who_noted_it_last_until_he_is_gone(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for at, host, pid in ((100.0, "one", 7), (110.0, "one", 7), (120.0, "two", 7), (130.0, "two", 8)):
        monkeypatch.setattr(notes.time, "time", lambda at=at: at)
        ledger.note_worker(0, host, pid, "contrast")
        row = row_of(ledger, Worker)
        seen.append((row["host"], row["pid"], row["started_at"], row["seen_at"]))
    assert seen == [
        ("one", 7, 100.0, 100.0),
        ("one", 7, 100.0, 110.0),
        ("two", 7, 120.0, 120.0),
        ("two", 8, 130.0, 130.0),
    ]
    ledger.note_worker(1, "two", 9, "contrast")
    ledger.note_worker_gone(0)
    assert [row["slot"] for row in rows_of(ledger, Worker)] == [1]


def test_the_progress_of_a_stage_is_not_noted_more_often_than_a_person_looks(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.note_manifest(MANIFEST)
    now = 1000.0
    monkeypatch.setattr(notes.time, "monotonic", lambda: now)
    assert ledger.note_stage(RUN, "detect", 1, 100)
    assert not ledger.note_stage(RUN, "detect", 2, 100)
    assert ledger.note_stage(RUN, "detect", 100, 100)
    assert ledger.note_stage(RUN, "build", 1, 4)
    now += notes.STAGE_SECONDS
    assert ledger.note_stage(RUN, "build", 2, 4)
    assert (row_of(ledger, Run)["stage"], row_of(ledger, Run)["done"]) == ("build", 2)


def test_what_was_sent_long_ago_is_forgotten_but_no_dead_letter_and_no_run(ledger: Ledger) -> None:
    ledger.note_manifest(MANIFEST)
    objects = tuple(replace(OBJECT, sop_instance_uid=f"1.6.{n}") for n in range(5))
    ledger.note_record(replace(RECORD, objects=objects), run=RUN, finished_at=103.5)

    def note(uid: str, destination: str, state: DeliveryState, finished_at: float) -> None:
        name = f"{RUN}.{uid}"
        ledger.note_entry(
            replace(
                ENTRY,
                name=name,
                sop_instance_uid=uid,
                destination=destination,
                state=state,
                finished_at=finished_at,
            )
        )

    note("1.6.0", "a", DeliveryState.SENT, 200.0)
    note("1.6.0", "b", DeliveryState.CONFIRMED, 200.0)
    note("1.6.1", "a", DeliveryState.SENT, 200.0)
    note("1.6.1", "b", DeliveryState.DEAD, 200.0)
    note("1.6.2", "a", DeliveryState.SENT, 200.0)
    note("1.6.2", "b", DeliveryState.WAITING, 0.0)
    note("1.6.3", "a", DeliveryState.SENT, 200.0)
    note("1.6.3", "b", DeliveryState.SENT, 300.0)
    put_received(ledger, "1.2", "1.1", headers=[HEADER])
    assert ledger.forget_rows(before=201.0)
    assert [row["sop_instance_uid"] for row in rows_of(ledger, Object)] == ["1.6.1", "1.6.2", "1.6.3", "1.6.4"]
    left = [(row["destination"], row["sop_instance_uid"], row["state"]) for row in rows_of(ledger, Delivery)]
    assert left == [("b", "1.6.1", "dead"), ("b", "1.6.2", "waiting"), ("b", "1.6.3", "sent")]
    assert len(rows_of(ledger, Run)) == len(rows_of(ledger, Instance)) == 1


def test_a_ledger_that_is_away_stops_nobody_and_is_logged_once_without_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "PAUSE_SECONDS", 0.0)
    settings = Settings(data_dir=tmp_path, database_url=f"postgresql://m3:{PASSWORD}@127.0.0.1:1/node")
    ledger = Ledger(open_engine(settings))
    with caplog.at_level(logging.DEBUG):
        assert not ledger.note_manifest(MANIFEST)
        assert not ledger.note_record(RECORD, run=RUN, finished_at=1.0)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("m3node")]
    assert line.startswith("the ledger is behind")
    assert PASSWORD not in caplog.text


def test_a_database_that_is_away_is_not_asked_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path)
    now = 1000.0
    monkeypatch.setattr(notes.time, "monotonic", lambda: now)
    with opened_ledger(settings) as ledger:
        with monkeypatch.context() as broken:
            broken.setattr(ledger.engine.dialect, "do_execute", _no_room)
            assert not ledger.note_manifest(MANIFEST)
        assert not ledger.note_manifest(MANIFEST)
        now += notes.PAUSE_SECONDS
        assert ledger.note_manifest(MANIFEST)


def _no_room(*_arguments: object, **_more: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_without_a_ledger_nothing_is_noted() -> None:
    ledger = NoLedger()
    assert not ledger.note_manifest(MANIFEST)
    assert not ledger.note_stage(RUN, "detect", 1, 1)
    assert not ledger.forget_rows(0.0)
