"""Whatever the files say is to be done the engine is told of, once; what has ended or is under way it is not."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from housekeeping import House
from m3node.delivery.entry import Entry
from m3node.delivery.state import DeliveryState
from m3node.errors import DatabaseError
from m3node.intake.keeper.index import header_line
from m3node.intake.series.manifest import Manifest, SliceRef, StackKey, write_manifest
from m3node.jobs.engine import names, reconcile
from m3node.jobs.engine.dispatch import Dispatcher, Work
from m3node.jobs.engine.reconcile import Reconciled, Reconciler
from m3node.jobs.ledger.files import SeriesFacts
from m3node.jobs.ledger.notes import NoLedger
from m3node.jobs.ledger.rows import ManifestFacts
from m3node.settings import Destination, Settings
from made_headers import HEADER


class Engine(Dispatcher):
    """Holds work in memory; its database is away when a test says so."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.work: list[Work] = []
        self.told: list[str] = []
        self.away = False

    def holds(self, work_id: str, queue: str, state: str = "ENQUEUED", *, version: str = "") -> None:
        version = version or names.APPLICATION_VERSION
        self.work.append(Work(work_id, state, queue, executor="", version=version, taken_at=0.0))

    def all_live(self) -> tuple[Work, ...]:
        if self.away:
            raise DatabaseError("the database cannot be used")
        return tuple(self.work)

    def enqueue_job(self, manifest_key: str, run: str, priority: str, *, delay: float = 0.0) -> bool:
        self.told.append(f"engine: {run} {priority}")
        known = names.job_prefix(manifest_key) in self.live(names.JOBS)
        if not known:
            self.holds(names.job_prefix(manifest_key) + "1", names.JOBS)
        return not known

    def send_at_once(self, entry: Entry) -> bool:
        self.told.append(f"send: {entry.destination}/{entry.name}")
        return True

    def forget_stranded(self, work: Iterable[Work]) -> int:
        stranded = [item for item in work if item.stranded]
        self.work = [item for item in self.work if item not in stranded]
        return len(stranded)

    def wake(self, delayed: Iterable[Work]) -> None:
        self.told += [f"wake: {work.id}" for work in delayed]


class Told(NoLedger):
    """Tells who was told first."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def note_manifest(self, manifest: Manifest | ManifestFacts) -> bool:
        assert isinstance(manifest, ManifestFacts)
        self._told.append(f"ledger: {manifest.run}")
        return True

    def note_series(self, facts: SeriesFacts) -> bool:
        series = facts.series
        self._told.append(f"ledger: series {series['series_instance_uid']} of study {series['study_instance_uid']}")
        return True


class Node(House):
    """Files, an engine that knows nothing of them yet, and who compares the two."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        destinations = tuple(Destination(name=name, ae_title="A", host="127.0.0.1") for name in ("pacs", "pacs2"))
        self.settings = Settings(data_dir=self.layout.root, destinations=destinations)
        self.engine = Engine(self.settings)
        self.restart()

    def restart(self) -> None:
        self.reconciler = Reconciler(self.settings, self.engine, Told(self.engine.told))

    def series(self, series: str, priority: str = "routine") -> Manifest:
        made = Manifest(
            key=f"key of {series}",
            stack=StackKey(series, ""),
            generation=1,
            supersedes="",
            root="/spool",
            instances=(replace(HEADER, series_instance_uid=series),),
            slices=(SliceRef(0, 0),),
            liver_segs=(),
            senders=(),
            priority=priority,
            created_at=1.0,
        )
        write_manifest(made, self.layout.manifests)
        return made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_each_manifest_is_handed_over_once_and_the_ledger_hears_of_it_first(node: Node) -> None:
    node.series("1.2")
    node.series("1.3", priority="stat")
    assert [node.reconciler.new_manifests() for _ in range(2)] == [2, 0]
    node.series("1.4")
    assert node.reconciler.new_manifests() == 1
    assert node.engine.told == [
        "ledger: 1.2.g1",
        "engine: 1.2.g1 routine",
        "ledger: 1.3.g1",
        "engine: 1.3.g1 stat",
        "ledger: 1.4.g1",
        "engine: 1.4.g1 routine",
    ]


def test_the_ledger_hears_of_the_series_of_a_new_run_at_once(node: Node) -> None:
    node.series("1.2")
    header = replace(HEADER, study_instance_uid="1.1", series_instance_uid="1.2")
    (node.layout.index / "1.2.jsonl").write_text(json.dumps(header_line(header)) + "\n")
    assert node.reconciler.new_manifests() == 1
    assert node.engine.told[-1] == "ledger: series 1.2 of study 1.1"


def test_a_manifest_that_comes_in_the_tick_of_the_last_look_is_seen_by_the_next(node: Node) -> None:
    tick = time.time() + 10.0  # so young that no clock has gone on since
    node.series("1.2")
    os.utime(node.layout.manifests, (tick, tick))
    assert node.reconciler.new_manifests() == 1
    node.series("1.3")
    os.utime(node.layout.manifests, (tick, tick))
    assert node.reconciler.new_manifests() == 1


@pytest.mark.parametrize("count", [2, 12], ids=["few", "many"])
def test_what_could_not_be_handed_over_is_new_again(node: Node, count: int) -> None:
    for number in range(count):
        node.series(f"1.{number}")
    node.engine.away = True
    for _ in range(2):
        with pytest.raises(DatabaseError):
            node.reconciler.new_manifests()
    node.engine.away = False
    assert node.reconciler.new_manifests() == count
    assert len(node.engine.work) == count


def test_a_run_that_has_ended_is_not_handed_over_nor_one_that_is_under_way(node: Node) -> None:
    node.run("1.2", ended=1.0)
    (node.layout.manifests / "1.2.g1.json").unlink()  # one that says nothing
    node.series("1.2")
    under_way = node.series("1.3")
    node.engine.holds(names.job_prefix(under_way.key) + "4", names.JOBS, "PENDING")
    node.series("1.4")
    assert node.reconciler.new_manifests() == 1
    assert node.reconciler.all() == Reconciled()
    assert [work.id for work in node.engine.work] == ["job:key of 1.3:4", "job:key of 1.4:1"]


def test_after_a_start_the_engine_is_not_told_of_each_of_thousands_that_it_knows(node: Node) -> None:
    for number in range(reconcile._MANY + 5):
        node.series(f"1.{number}")
    assert node.reconciler.new_manifests() == reconcile._MANY + 5
    node.engine.told.clear()
    node.restart()
    assert node.reconciler.new_manifests() == 0
    assert node.engine.told == []


def test_a_damaged_manifest_is_passed_over_and_said_once(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.manifest("1.1.g1")
    node.series("1.2")
    with caplog.at_level(logging.CRITICAL):
        assert node.reconciler.new_manifests() == 1
        for _ in range(3):
            assert node.reconciler.all() == Reconciled()
    (said,) = caplog.messages
    assert said.startswith("run 1.1.g1 cannot be begun and is passed over")


def test_what_the_engine_has_lost_is_handed_over_again_and_what_another_release_left_is_begun_anew(node: Node) -> None:
    for number in range(3):
        node.series(f"1.{number}")
    assert node.reconciler.new_manifests() == 3
    assert node.reconciler.all() == Reconciled()
    node.engine.work.clear()
    node.engine.holds("job:key of 1.1:2", names.JOBS, "PENDING", version="0")
    assert node.reconciler.all() == Reconciled(jobs=3, stranded=1)
    assert sorted(work.id for work in node.engine.work) == [f"job:key of 1.{number}:1" for number in range(3)]


def test_somebody_looks_at_a_destination_for_which_something_is_due_and_nobody_is_at_it(node: Node) -> None:
    node.delivery("1.2.g1", DeliveryState.WAITING, ended=1.0)
    node.delivery("1.3.g1", DeliveryState.WAITING, ended=2.0)
    node.delivery("1.2.g1", DeliveryState.SENT, destination="pacs2", ended=1.0)
    node.delivery("1.2.g1", DeliveryState.WAITING, destination="former", ended=1.0)
    assert node.reconciler.all() == Reconciled(deliveries=1)
    assert node.engine.told == ["send: pacs/1.2.g1.report.sr"]


@pytest.mark.parametrize(
    ("work_id", "state", "deliveries"),
    [
        ("send:pacs:another:1", "ENQUEUED", 0),
        ("send:pacs:another:1", "PENDING", 0),
        ("send:pacs:another:1", "DELAYED", 1),
        ("send:pacs2:another:1", "PENDING", 1),
    ],
)
def test_who_is_at_a_destination_sends_all_that_is_due(node: Node, work_id: str, state: str, deliveries: int) -> None:
    node.delivery("1.2.g1", DeliveryState.WAITING, ended=1.0)
    node.engine.holds(work_id, names.DELIVERIES, state)
    assert node.reconciler.all() == Reconciled(deliveries=deliveries)


def test_what_is_put_off_waits_for_its_time(node: Node) -> None:
    path = node.delivery("1.2.g1", DeliveryState.RETRYING, ended=1.0)
    later = path.read_text().replace('"not_before": 0.0', f'"not_before": {time.time() + 60.0}')
    path.write_text(later)
    assert "not_before" in later
    assert node.reconciler.all() == Reconciled()


def test_a_job_that_a_clock_put_off_for_years_is_woken_and_one_that_waits_its_time_is_not(node: Node) -> None:
    for number, seconds in enumerate((3600.0 * 24 * 365, names.LONGEST_PAUSE)):
        made = node.series(f"1.{number}")
        node.engine.holds(names.job_prefix(made.key) + "2", names.JOBS, "DELAYED")
        node.engine.work[-1] = replace(node.engine.work[-1], delayed_until=time.time() + seconds)
    assert node.reconciler.all() == Reconciled()
    assert node.engine.told == ["wake: job:key of 1.0:2"]
