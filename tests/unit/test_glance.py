"""A node at a glance says who is alive, what room there is and what is dead, with and without its ledger."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from ledgers import opened_ledger
from m3node.delivery.entry import Entry
from m3node.delivery.state import DeliveryState
from m3node.jobs.locks import hold
from m3node.jobs.node.glance import Glance, look
from m3node.layout import DataLayout
from m3node.settings import DiskSettings, JobSettings, Settings
from made_runs import run_entry

DETECTOR = "contrast 1"


def settings_of(folder: Path, **more: object) -> Settings:
    DataLayout(folder).create()
    return Settings(data_dir=folder, **more)


def alive(glance: Glance) -> dict[str, bool]:
    return {role.name: role.holder is not None for role in glance.roles}


def dead(run: str, error: str, destination: str = "pacs", *, at: float = 200.0) -> Entry:
    return run_entry(run, destination, queued_at=at - 100.0, state=DeliveryState.DEAD, last_error=error, finished_at=at)


@pytest.mark.parametrize(("free", "state"), [(3000, "ok"), (1999, "low"), (999, "refusing")])
def test_the_room_on_the_disk_is_told_by_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    settings = settings_of(tmp_path, disk=DiskSettings(warn_free_mb=2000, refuse_free_mb=1000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=8_000_000_000, free=free * 1_000_000))
    disk = look(settings, time.time()).disk
    assert (disk.state, disk.free_mb, disk.total_mb) == (state, free, 8000)


def test_who_is_alive_is_known_without_the_ledger_also_beyond_what_the_settings_want(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, jobs=JobSettings(slots=1))
    with ExitStack() as held:
        for role in ("listen", "worker-7", "watch"):
            held.enter_context(hold(DataLayout(tmp_path), role))
        glance = look(settings, time.time())
    assert "there is no ledger" in glance.trouble
    assert alive(glance) == {"listen": True, "worker-0": False, "worker-7": True, "deliver": False, "watch": True}
    assert {role.holder.pid for role in glance.roles if role.holder is not None} == {os.getpid()}
    assert alive(look(settings, time.time())) == {"listen": False, "worker-0": False, "deliver": False}


def test_a_worker_that_vanished_is_missed_and_one_that_was_stopped_in_order_is_not(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, jobs=JobSettings(slots=1))
    with opened_ledger(settings) as ledger:
        for slot in (1, 2):
            ledger.note_worker(slot, "here", 1234, DETECTOR)
        ledger.note_worker_gone(2)
        glance = look(settings, time.time())
    assert alive(glance) == {"listen": False, "worker-0": False, "worker-1": False, "deliver": False}
    assert {role.name: role.detector for role in glance.roles if role.detector} == {"worker-1": DETECTOR}


def test_a_slot_that_was_killed_is_missed_though_neither_settings_nor_ledger_know_of_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, jobs=JobSettings(slots=1))
    for role, order in (("worker-3", False), ("worker-4", True), ("deliver", False)):
        with hold(DataLayout(tmp_path), role) as tenure:
            tenure.leaves_something = not order  # as kill -9 does
    with opened_ledger(settings):
        glance = look(settings, time.time())
    assert glance.trouble == ""
    assert alive(glance) == {"listen": False, "worker-0": False, "worker-3": False, "deliver": False}


def test_dead_letters_are_counted_by_where_they_should_go_and_what_they_ended_with(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with opened_ledger(settings) as ledger:
        for entry in (
            dead("1.2.g1", "0xA900"),
            dead("1.3.g1", "0xA900", at=150.0),
            dead("1.4.g1", "0x0110"),
            dead("1.5.g1", "0xA900", "research"),
        ):
            ledger.note_entry(entry)
        letters = look(settings, time.time()).dead
    assert {(item.destination, item.last_error): item.count for item in letters} == {
        ("pacs", "0xA900"): 2,
        ("pacs", "0x0110"): 1,
        ("research", "0xA900"): 1,
    }
    assert {item.oldest for item in letters} == {
        "pacs/1.3.g1.report.sr",
        "pacs/1.4.g1.report.sr",
        "research/1.5.g1.report.sr",
    }
