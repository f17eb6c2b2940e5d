"""What a worker slot leaves behind is hinted at until somebody has taken it over, whatever became of the ledger."""

from __future__ import annotations

import time
from pathlib import Path

from m3node.jobs.locks import left_by, slot_lock
from m3node.jobs.node.glance import look
from working import Workplace, workplace


def missing(place: Workplace) -> set[str]:
    """The worker slots that a status says are down, beside the one of the settings."""
    roles = look(place.settings, time.time()).roles
    return {role.name for role in roles if role.holder is None and role.name.startswith("worker")} - {"worker-0"}


def until_ready(place: Workplace, slot: int) -> None:
    place.until(lambda: f"slot {slot} is ready" in place.log)


def test_a_killed_slot_is_missed_until_it_is_taken_over_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    with workplace(tmp_path) as place:
        killed, stopped = place.work(slot=3), place.work(slot=4)
        for slot in (3, 4):
            until_ready(place, slot)
        killed.kill()
        stopped.terminate()
        killed.wait(60)
        assert stopped.wait(60) == 0
        place.ledger.note_worker_gone(3)  # as a ledger that was made anew from the files
        assert missing(place) == {"worker-3"}
        assert left_by(place.layout, slot_lock(4)) is None
        assert "0 jobs of slot 3" in place.actions.take_over(3)
        assert missing(place) == set()


def test_a_slot_that_cannot_give_its_jobs_back_when_it_is_stopped_is_missed(tmp_path: Path) -> None:
    with workplace(tmp_path, toml="[jobs]\ndrain_seconds = 0.5\n") as place:
        manifest = place.series(0)
        process = place.work(slot=3, manner="stuck", seconds=600.0)
        place.enqueue(manifest)
        place.until(lambda: place.begun("detect", manifest))
        process.terminate()
        assert process.wait(60) == 0
        place.ledger.note_worker_gone(3)
        assert missing(place) == {"worker-3"}
        assert "1 jobs of slot 3" in place.actions.take_over(3)
        assert missing(place) == set()
