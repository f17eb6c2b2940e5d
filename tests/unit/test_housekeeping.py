"""Results, records of deliveries and rows go in their time, and nothing is done again for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from housekeeping import HOUR, KIND, House
from ledgers import opened_ledger, rows_of
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.delivery.recall import requeue
from m3node.delivery.state import DeliveryState
from m3node.disk import Watermark
from m3node.errors import DatabaseError
from m3node.jobs.answer.record import read_record
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.keeping import ends, house
from m3node.jobs.keeping.house import THOROUGH_SECONDS, Housekeeping
from m3node.jobs.ledger.files import read_entry
from m3node.jobs.ledger.notes import Ledger, NoLedger
from m3node.jobs.ledger.sync import sync
from m3node.jobs.ledger.tables import Delivery
from m3node.rejection import Reason, Rejection
from m3node.settings import Destination, RetentionSettings, Settings

NOW = 1_800_000_000.0
DAY = 24 * HOUR
PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1")
STAYS = ["findings.json", "run.json"]


class Engine(Dispatcher):
    """Notes what it is to forget; away when a test says so."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.before: list[float] = []
        self.away = False

    def forget(self, before: float) -> int:
        if self.away:
            raise DatabaseError("the database cannot be used")
        self.before.append(before)
        return 0


class Keeping:
    """A house that is kept, at times and with a disk of the test's."""

    def __init__(self, root: Path, *, ledger: Ledger | None = None, **retention: float) -> None:
        self.house = House(root)
        self.layout = self.house.layout
        self.now, self.free, self.each = NOW, 1e6, 0.0
        settings = Settings(data_dir=self.layout.root, retention=RetentionSettings(**retention))
        self.engine = Engine(settings)
        low = Watermark(Path(), 1000.0, measure=lambda _: self._room(), clock=lambda: self.now)
        self._keeping = Housekeeping(settings, ledger or NoLedger(), self.engine, low=low, clock=lambda: self.now)

    def keep(self, after: float = 0.0) -> None:
        self.now += after
        self._keeping.keep_house()

    def _room(self) -> float:
        """Every run without its results makes some."""
        return self.free + self.each * sum(self.files(run.name) == STAYS for run in self.layout.results.iterdir())

    def files(self, run: str) -> list[str]:
        return sorted(path.name for path in (self.layout.results / run).iterdir())


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path, results_days=10.0, rows_days=30.0)


def test_results_go_in_their_time_and_what_says_what_they_were_stays(keeping: Keeping) -> None:
    for series, age in (("1.2", 11), ("1.3", 9)):
        keeping.house.run(series, ended=NOW - 20 * DAY)
        keeping.house.delivery(f"{series}.g1", DeliveryState.CONFIRMED, ended=NOW - age * DAY)
    keeping.keep()
    assert keeping.files("1.2.g1") == STAYS
    assert keeping.files("1.3.g1") == sorted([KIND.file_name, "masks.npz", "overlay.png", *STAYS])
    record = read_record(keeping.layout.results / "1.2.g1")
    assert record is not None
    assert [item.sop_instance_uid for item in record.objects] == ["9.1.2"], "our own objects are known when they return"


@pytest.mark.parametrize("state", [DeliveryState.WAITING, DeliveryState.STORED, DeliveryState.DEAD])
def test_results_of_which_something_may_still_be_sent_stay(keeping: Keeping, state: DeliveryState) -> None:
    keeping.house.run("1.2", ended=NOW - 99 * DAY)
    keeping.house.delivery("1.2.g1", state, ended=NOW - 99 * DAY)
    keeping.keep()
    assert KIND.file_name in keeping.files("1.2.g1")


def test_results_stay_whose_dead_letter_is_asked_back_at_that_moment(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping.house.run("1.2", ended=NOW - 99 * DAY)
    dead = keeping.house.delivery("1.2.g1", DeliveryState.DEAD, ended=NOW - 99 * DAY)

    def asked_back(path: Path, filed: str) -> Entry:
        if path == dead and path.exists():
            requeue(keeping.layout, "pacs", path.stem)
        return read_entry(path, filed)

    monkeypatch.setattr(ends, "read_entry", asked_back)
    keeping.keep()
    assert [entry.run for entry in waiting(box_of(keeping.layout, "pacs"))] == ["1.2.g1"]
    assert KIND.file_name in keeping.files("1.2.g1")


def test_what_a_failed_run_left_goes_like_any_other_but_a_run_that_has_not_ended_keeps_all(keeping: Keeping) -> None:
    keeping.house.run("1.2", ended=NOW - 99 * DAY, rejection=Rejection(Reason.FAILED, "failed", "1.2"))
    keeping.house.run("1.3", ended=NOW - 99 * DAY)
    keeping.house.run("1.4", ended=NOW - 99 * DAY)
    for run in ("1.2.g1", "1.3.g1", "1.4.g1"):
        (keeping.layout.results / run / "masks.npz").write_bytes(b"x")
    (keeping.layout.results / "1.3.g1" / "run.json").unlink()
    (keeping.layout.results / "1.4.g1" / "run.json").write_text("{")  # damaged: nobody knows how it ended
    keeping.keep()
    assert keeping.files("1.2.g1") == ["run.json"]
    assert "masks.npz" in keeping.files("1.3.g1")
    assert "masks.npz" in keeping.files("1.4.g1")


def test_results_stay_while_nobody_can_say_what_became_of_a_delivery(keeping: Keeping) -> None:
    keeping.house.run("1.2", ended=NOW - 99 * DAY)
    keeping.house.delivery("1.2.g1", DeliveryState.CANCELLED, ended=NOW - 99 * DAY).write_text("[")
    keeping.keep()
    assert KIND.file_name in keeping.files("1.2.g1")


def test_results_stay_for_ever_without_a_time(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, results_days=0.0, rows_days=0.0)
    keeping.house.run("1.2", ended=NOW - 999 * DAY)
    sent = keeping.house.delivery("1.2.g1", DeliveryState.SENT, ended=NOW - 999 * DAY)
    keeping.free = 1.0
    keeping.keep()
    assert len(keeping.files("1.2.g1")) == 5
    assert sent.exists()
    assert keeping.engine.before == []


def test_below_the_mark_results_go_before_their_time_and_the_log_says_so_once(
    keeping: Keeping, caplog: pytest.LogCaptureFixture
) -> None:
    keeping.house.run("1.2", ended=NOW - 2 * HOUR)
    keeping.keep()
    assert len(keeping.files("1.2.g1")) == 5
    keeping.free = 500.0
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            keeping.keep(60.0)
        assert keeping.files("1.2.g1") == STAYS
        keeping.free = 5000.0
        keeping.keep(60.0)
    told = [record.message for record in caplog.records if "disk" in record.message]
    assert len(told) == 2
    assert "disk.warn_free_mb" in told[0]
    assert "room" in told[1]


def test_below_the_mark_the_oldest_results_go_until_there_is_room(keeping: Keeping) -> None:
    for hours in (2, 5, 3, 4):
        keeping.house.run(f"1.{hours}", ended=NOW - hours * HOUR)
    keeping.free, keeping.each = 900.0, 100.0
    keeping.keep()
    assert [keeping.files(f"1.{hours}.g1") == STAYS for hours in (5, 4, 3, 2)] == [True, True, False, False]


def test_it_looks_thoroughly_once_an_hour_and_again_soon_when_the_database_is_away(keeping: Keeping) -> None:
    keeping.keep()
    keeping.keep(THOROUGH_SECONDS - 1)
    assert keeping.engine.before == [NOW - 30 * DAY]
    keeping.engine.away = True
    with pytest.raises(DatabaseError):
        keeping.keep(1.0)
    keeping.engine.away = False
    keeping.keep(60.0)
    assert keeping.engine.before == [NOW - 30 * DAY, keeping.now - 30 * DAY]


def test_a_clock_that_was_set_back_puts_nothing_off(keeping: Keeping) -> None:
    keeping.keep()
    keeping.keep(-365 * DAY)
    keeping.keep(60.0)
    assert keeping.engine.before == [NOW - 30 * DAY, NOW - 395 * DAY]


def test_reports_of_commitment_that_were_acted_on_go_in_their_time(keeping: Keeping) -> None:
    reports = []
    for number, (folder, days) in enumerate([("acted", 31), ("unknown", 31), ("acted", 29), ("", 31)]):
        path = keeping.layout.commitments / folder / f"2.25.{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        os.utime(path, (NOW - days * DAY, NOW - days * DAY))
        reports.append(path)
    keeping.keep()
    assert [path.exists() for path in reports] == [False, False, True, True]


def test_records_of_deliveries_go_in_their_time_and_nothing_waits_again(keeping: Keeping) -> None:
    old, young = NOW - 31 * DAY, NOW - 29 * DAY
    stay, go = [], []
    for number, (state, ended) in enumerate(
        [
            (DeliveryState.SENT, old),
            (DeliveryState.CONFIRMED, old),
            (DeliveryState.CANCELLED, old),
            (DeliveryState.SENT, young),
            (DeliveryState.DEAD, old),
            (DeliveryState.WAITING, old),
        ]
    ):
        keeping.house.run(f"1.{number}", ended=ended)
        path = keeping.house.delivery(f"1.{number}.g1", state, ended=ended)
        (go if number < 3 else stay).append(path)
    os.utime(stay[0], (old, old))  # as a copy of it may have: what counts is what it says
    keeping.keep()
    assert [path.exists() for path in (*go, *stay)] == [False] * 3 + [True] * 3
    assert [entry.run for entry in waiting(box_of(keeping.layout, "pacs"))] == ["1.5.g1"]


def test_a_record_stays_that_alone_keeps_an_object_from_being_sent_again(keeping: Keeping) -> None:
    old = NOW - 31 * DAY
    keeping.house.run("1.2", ended=old)
    without_end = keeping.house.delivery("1.2.g1", DeliveryState.SENT, ended=old)
    record = read_record(keeping.layout.results / "1.2.g1")
    assert record is not None
    (keeping.layout.results / "1.2.g1" / "run.json").unlink()
    keeping.house.run("1.3", ended=old)
    half_filed = keeping.house.delivery("1.3.g1", DeliveryState.SENT, ended=old)
    keeping.house.delivery("1.3.g1", DeliveryState.WAITING, ended=old)
    keeping.keep()
    assert without_end.exists()
    assert half_filed.exists()
    assert enqueue(keeping.layout, "1.2.g1", record.objects, [PACS]) == ()
    assert waiting(box_of(keeping.layout, "pacs")) == ()


def test_records_that_are_moved_while_others_are_looked_at_stop_nothing(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = NOW - 31 * DAY
    paths = []
    for number in range(5):
        keeping.house.run(f"1.{number}", ended=old)
        paths.append(keeping.house.delivery(f"1.{number}.g1", DeliveryState.SENT, ended=old))

    def the_others_are_moved(path: Path, filed: str) -> Entry:
        for other in paths:
            if other != path and other.exists():
                other.rename(other.with_suffix(".moved"))
        return read_entry(path, filed)

    monkeypatch.setattr(house, "read_entry", the_others_are_moved)
    keeping.keep()
    assert [path for path in paths if path.exists()] == []
    assert len(list(paths[0].parent.glob("*.moved"))) == 4


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    House(tmp_path)
    with opened_ledger(Settings(data_dir=tmp_path / "data")) as ledger:
        yield ledger


def test_a_ledger_made_anew_from_the_files_has_forgotten_the_same_deliveries(tmp_path: Path, ledger: Ledger) -> None:
    keeping = Keeping(tmp_path, ledger=ledger, rows_days=30.0)
    for number, state in enumerate((DeliveryState.SENT, DeliveryState.CANCELLED, DeliveryState.DEAD)):
        for age in (31, 29):
            keeping.house.run(f"1.{number}.{age}", ended=NOW - age * DAY)
            keeping.house.delivery(f"1.{number}.{age}.g1", state, ended=NOW - age * DAY)
    for path in keeping.layout.manifests.iterdir():
        path.unlink()
    sync(keeping.layout, ledger)
    assert len(rows_of(ledger, Delivery)) == 6
    keeping.keep()
    remembered = rows_of(ledger, Delivery)
    assert sorted(row["run"] for row in remembered) == ["1.0.29.g1", "1.1.29.g1", "1.2.29.g1", "1.2.31.g1"]
    sync(keeping.layout, ledger)
    assert rows_of(ledger, Delivery) == remembered


def test_what_a_killed_process_left_half_written_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    run = keeping.layout.results / "1.2.g1"
    box = box_of(keeping.layout, "pacs")
    box.create()
    run.mkdir()
    folders = (keeping.layout.manifests, keeping.layout.commitments, run, box.folder, box.sent)
    for folder in folders:
        for name, age in ((".0123.part", 2 * HOUR), (".4567.part", 0.0), ("whole.json", 2 * HOUR)):
            (folder / name).touch()
            written = (folder / name).stat().st_mtime - age
            os.utime(folder / name, (written, written))
    keeping.keep()
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [".4567.part", "whole.json"]
