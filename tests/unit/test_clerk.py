"""The clerk goes on when disk or database are in its way, says so once, and ends only of what nobody expected."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from pathlib import Path

import pytest

from answering import made_generation
from m3node.errors import DatabaseError
from m3node.jobs.engine import names
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.engine.setup import prepare
from m3node.jobs.node import clerk
from m3node.jobs.node.clerk import run_clerk
from m3node.layout import DataLayout
from m3node.settings import Settings
from waiting import wait_for


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = Settings(data_dir=tmp_path / "data")
    prepare(settings)
    monkeypatch.setattr(clerk, "AGAIN_SECONDS", 0.05)
    return settings


def test_a_manifest_is_handed_over_though_the_house_is_in_trouble(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(clerk, "catch_up", full)
    monkeypatch.setattr(clerk.Reconciler, "all", full)
    stop = threading.Event()
    running = threading.Thread(target=run_clerk, args=(settings, stop))
    running.start()
    dispatcher = Dispatcher(settings)
    try:
        manifest = made_generation(DataLayout(settings.data_dir), 12)
        wait_for(lambda: names.job_prefix(manifest.key) in dispatcher.live(names.JOBS))
    finally:
        stop.set()
        running.join()
        dispatcher.close()


CHORES = ("catch_up", "Reconciler.all", "Housekeeping.keep_house")


@pytest.mark.parametrize("failing", CHORES)
def test_all_of_its_work_is_done_and_what_fails_is_tried_again_soon(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    for pause in ("FOLLOW_SECONDS", "ALL_SECONDS"):
        monkeypatch.setattr(clerk, pause, 1e6)
    done: Counter[str] = Counter()

    def do(chore: str) -> None:
        done[chore] += 1
        if chore == failing and done[chore] < 3:
            raise DatabaseError("away")

    for chore in CHORES:
        monkeypatch.setattr(f"{clerk.__name__}.{chore}", lambda *_, chore=chore: do(chore))
    stop = threading.Event()
    running = threading.Thread(target=run_clerk, args=(settings, stop))
    running.start()
    try:
        wait_for(lambda: done[failing] == 3 and all(done[chore] for chore in CHORES))
    finally:
        stop.set()
        running.join()


@pytest.mark.timeout(60)  # it would wait for ever for the other thread
@pytest.mark.parametrize("broken", ["catch_up", "Reconciler.new_manifests"])
def test_a_clerk_of_which_either_thread_is_broken_ends_so_that_it_is_started_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def odd(*_: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr(f"{clerk.__name__}.{broken}", odd)
    with pytest.raises(ValueError, match="odd"):
        run_clerk(settings, threading.Event())
