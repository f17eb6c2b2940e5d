"""What a person is shown of the ledger, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgers import DATABASES, opened_ledger, put_received
from m3node.delivery.entry import Entry
from m3node.delivery.state import DeliveryState
from m3node.errors import DatabaseError
from m3node.jobs.answer.record import RunRecord
from m3node.jobs.ledger import views
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.states import RunState
from m3node.jobs.ledger.view_types import DestinationView, to_json
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import Settings
from made_runs import run_entry, run_manifest

NOW = 1000.0


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with opened_ledger(Settings(data_dir=tmp_path / "data", database_url=url)) as ledger:
        yield ledger


def queue(ledger: Ledger, series: str, *, at: float, study: str = "1.1", priority: str = "routine") -> str:
    made = run_manifest(series, study=study, priority=priority, created_at=at)
    assert ledger.note_manifest(made)
    return f"{series}.g1"


def end(ledger: Ledger, run: str, study: str = "1.1", failure: str = "") -> None:
    series = run.removesuffix(".g1")
    item = ResultObject(ObjectKind.REPORT, Path("report.sr.dcm"), "ab", "1.5", f"9.{run}", "1.7", study)
    record = RunRecord(series, 1, "k", study, series, Outcome.LESIONS, 1, (item,), "", "", failure)
    assert ledger.note_record(record, run=run, finished_at=500.0)


def deliver(ledger: Ledger, destination: str, run: str, state: DeliveryState, **changes: object) -> Entry:
    entry = run_entry(run, destination, **{"queued_at": 500.0, "state": state} | changes)
    assert ledger.note_entry(entry)
    return entry


def test_the_overview_counts_by_state_and_shows_who_works(ledger: Ledger) -> None:
    for number, priority in enumerate(("routine", "stat", "routine", "routine")):
        queue(ledger, f"1.{number}", at=100.0 + number, priority=priority)
    ledger.note_waiting("1.1.g1", "the disk is full")
    ledger.note_started("1.2.g1", "0")
    ledger.note_stage("1.2.g1", "detect", 3, 10)
    end(ledger, "1.3.g1")
    ledger.note_worker(0, "one", 7, "contrast")
    put_received(ledger, "1.0", "1.1")
    seen = views.overview(ledger.engine, NOW)
    assert seen.at == NOW
    assert seen.runs == {"queued": 1, "waiting": 1, "running": 1, "done": 1}
    assert seen.queued == {"routine": 1, "stat": 1}
    assert seen.oldest_queued_at == 100.0
    assert (seen.studies, seen.series) == (1, {"answered": 1})
    (running,) = seen.running
    assert (running.run, running.worker, running.stage, running.done, running.total) == ("1.2.g1", "0", "detect", 3, 10)
    (worker,) = seen.workers
    assert (worker.slot, worker.host, worker.pid, worker.detector) == (0, "one", 7, "contrast")


def test_the_overview_says_of_each_destination_how_long_and_why_it_waits(ledger: Ledger) -> None:
    deliver(ledger, "a", "1.1.g1", DeliveryState.SENT, finished_at=600.0)
    deliver(ledger, "a", "1.2.g1", DeliveryState.DEAD, last_error="refused", finished_at=600.0)
    deliver(ledger, "b", "1.1.g1", DeliveryState.WAITING, queued_at=300.0)
    failing = {"failing_since": 400.0, "last_error": "no answer", "not_before": 700.0}
    deliver(ledger, "b", "1.2.g1", DeliveryState.RETRYING, **failing)
    newer = {"failing_since": 450.0, "last_error": "no room", "not_before": 800.0}
    deliver(ledger, "b", "1.3.g1", DeliveryState.RETRYING, **newer)
    deliver(ledger, "b", "1.4.g1", DeliveryState.RETRYING, **failing)
    assert views.overview(ledger.engine, NOW).destinations == (
        DestinationView("a", {"dead": 1, "sent": 1}, oldest_at=None, failing_since=None, last_error=""),
        DestinationView("b", {"retrying": 3, "waiting": 1}, oldest_at=300.0, failing_since=400.0, last_error="no room"),
    )


def test_an_empty_ledger_has_an_overview(ledger: Ledger) -> None:
    seen = views.overview(ledger.engine, NOW)
    assert (seen.studies, seen.runs, seen.running, seen.destinations, seen.workers) == (0, {}, (), (), ())
    assert seen.oldest_queued_at is None


def test_a_study_is_shown_with_all_that_became_of_it_and_nothing_of_others(ledger: Ledger) -> None:
    for study, series in (("1.1", "1.2"), ("2.1", "2.2")):
        put_received(ledger, series, study)
        end(ledger, queue(ledger, series, at=3.0, study=study), study)
    deliver(ledger, "pacs", "1.2.g1", DeliveryState.SENT, finished_at=600.0)
    deliver(ledger, "pacs", "2.2.g1", DeliveryState.SENT, finished_at=600.0, study_instance_uid="2.1")
    seen = views.study(ledger.engine, "1.1")
    assert seen is not None
    assert [item.series_instance_uid for item in seen.series] == ["1.2"]
    assert [(item.run, item.state) for item in seen.runs] == [("1.2.g1", "done")]
    assert [item.sop_instance_uid for item in seen.objects] == ["9.1.2.g1"]
    assert [(item.destination, item.state) for item in seen.deliveries] == [("pacs", "sent")]
    assert views.study(ledger.engine, "3.1") is None


def test_runs_are_listed_by_state_with_the_urgent_and_the_newest_first(ledger: Ledger) -> None:
    queue(ledger, "1.1", at=100.0)
    queue(ledger, "1.2", at=50.0, priority="stat")
    queue(ledger, "1.3", at=200.0)
    end(ledger, queue(ledger, "1.4", at=300.0), failure="no objects")
    assert [item.run for item in views.runs(ledger.engine)] == ["1.2.g1", "1.4.g1", "1.3.g1", "1.1.g1"]
    assert [item.run for item in views.runs(ledger.engine, [RunState.QUEUED], limit=2)] == ["1.2.g1", "1.3.g1"]
    (failed,) = views.runs(ledger.engine, [RunState.FAILED])
    assert failed.message == "no objects"
    assert views.run(ledger.engine, "1.4.g1") == failed
    assert views.run(ledger.engine, "1.5.g1") is None


def test_dead_letters_are_listed_the_oldest_first(ledger: Ledger) -> None:
    deliver(ledger, "a", "1.1.g1", DeliveryState.DEAD, last_error="refused", finished_at=700.0)
    deliver(ledger, "b", "1.1.g1", DeliveryState.DEAD, last_error="given up", finished_at=600.0)
    deliver(ledger, "c", "1.1.g1", DeliveryState.CANCELLED, finished_at=500.0)
    letters = views.dead_letters(ledger.engine)
    assert [(item.destination, item.last_error) for item in letters] == [("b", "given up"), ("a", "refused")]


def test_what_is_shown_can_be_json(ledger: Ledger) -> None:
    ledger.note_started(queue(ledger, "1.1", at=100.0), "0")
    deliver(ledger, "a", "1.1.g1", DeliveryState.WAITING)
    ledger.note_worker(0, "one", 7, "contrast")
    tree = json.loads(json.dumps(to_json(views.overview(ledger.engine, NOW))))
    assert tree["runs"] == {"running": 1}
    assert tree["running"][0]["run"] == "1.1.g1"
    assert tree["destinations"][0]["states"] == {"waiting": 1}
    assert tree["workers"][0]["host"] == "one"


def test_a_ledger_that_is_away_is_a_clear_error() -> None:
    engine = open_engine(Settings(database_url="postgresql://127.0.0.1:1/away"))
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/away cannot be used"):
        views.overview(engine, NOW)
