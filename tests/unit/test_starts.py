"""A step that takes its worker down is begun so often and no more; one that ends or is left in order is not counted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from m3node.jobs.answer import starts
from m3node.rejection import Reason


@pytest.mark.parametrize("limit", [1, 3])
def test_a_step_that_never_ended_is_not_begun_once_more(tmp_path: Path, limit: int) -> None:
    for _ in range(limit):
        assert starts.begin(tmp_path, "detect", limit) is None
    rejection = starts.begin(tmp_path, "detect", limit)
    assert rejection is not None
    assert rejection.reason is Reason.FAILED
    assert f"in step detect of {tmp_path.name}" in rejection.message


def test_a_step_is_not_blamed_for_another_one(tmp_path: Path) -> None:
    assert starts.begin(tmp_path, "assemble", 1) is None
    assert starts.begin(tmp_path, "detect", 1) is None
    starts.end(tmp_path, "assemble")
    assert starts.begin(tmp_path, "assemble", 1) is None
    assert starts.begin(tmp_path, "detect", 1) is not None


def test_a_step_that_ended_or_was_left_in_order_may_begin_again(tmp_path: Path) -> None:
    for _ in range(5):
        assert starts.begin(tmp_path, "detect", 2) is None
        starts.take_back(tmp_path, "detect")
    assert starts.begin(tmp_path, "detect", 2) is None
    assert starts.begin(tmp_path, "detect", 2) is None
    starts.take_back(tmp_path, "detect")
    assert starts.begin(tmp_path, "detect", 2) is None  # the one before it stays counted
    assert starts.begin(tmp_path, "detect", 2) is not None
    starts.end(tmp_path, "detect")
    assert starts.begin(tmp_path, "detect", 2) is None


def test_a_run_was_begun_when_it_was_begun_first(tmp_path: Path) -> None:
    assert starts.begun_at(tmp_path) == 0.0
    before = time.time()
    starts.mark_begun(tmp_path)
    first = starts.begun_at(tmp_path)
    assert before <= first <= time.time()
    starts.mark_begun(tmp_path)
    assert starts.begun_at(tmp_path) == first


def test_nothing_is_left_of_it_in_the_end(tmp_path: Path) -> None:
    starts.mark_begun(tmp_path)
    starts.begin(tmp_path, "detect", 3)
    starts.ask_to_cancel(tmp_path, "not wanted")
    assert starts.cancel_reason(tmp_path) == "not wanted"
    starts.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_start_is_on_disk_before_the_step_does_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    assert starts.begin(tmp_path, "detect", 3) is None
    assert synced == [str(tmp_path / starts.STARTS), str(tmp_path)]
