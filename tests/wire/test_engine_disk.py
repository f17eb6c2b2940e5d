"""A full disk under the databases or the results holds jobs up; they go on when there is room, without a restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from m3node.errors import DatabaseError
from m3node.intake.series.manifest import Manifest
from m3node.jobs.engine import names
from m3node.results.findings import Outcome
from small_disk import small_disk
from working import Workplace, run_of, workplace

QUICK = "[jobs]\nretry_seconds = 0.5\n"


def until_it_waits(place: Workplace) -> None:
    """Let the worker meet the full disk, and meet it again."""
    place.until(lambda: "full" in place.log or "No space" in place.log)
    time.sleep(2.0)


def hand_over_again_and_again(place: Workplace, manifest: Manifest) -> None:
    """What is left in the last page of the database's log may take a few."""
    for _ in range(1000):
        place.enqueue(manifest)
        place.dispatcher.cancel([names.job_prefix(manifest.key) + "1"])


def test_jobs_go_on_by_themselves_when_the_databases_disk_has_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data" / "database", 8) as disk, workplace(tmp_path, toml=QUICK) as place:
        first, second = place.series(0), place.series(1)
        place.work(manner="slow", seconds=3.0)
        place.enqueue(first)
        place.until(lambda: place.begun("detect", first))
        disk.fill()
        with pytest.raises(DatabaseError, match="full"):
            hand_over_again_and_again(place, second)
        # It met the full disk. Room that the database's log has inside, and uses again, may still let it end.
        until_it_waits(place)
        disk.empty()
        place.until_ended(first)
        place.reconciler.all()
        place.until_ended(second)
        for manifest in (first, second):
            record = place.record(manifest)
            assert record is not None
            assert record.objects
        assert [done.step for done in place.steps(run=run_of(first))] == ["assemble", "detect", "build", "close"]


def test_a_run_waits_for_room_for_its_results_and_is_not_blamed(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "data" / "results", 8) as disk,
        workplace(tmp_path, toml=QUICK + "poison_limit = 1\n") as place,
    ):
        manifest = place.series(0)
        disk.fill()
        place.enqueue(manifest)
        place.work()
        place.until(lambda: place.log.count("waits: No space left on device") >= 5)
        # The first attempt, the one that waits or is made, and the one before it: a disk may be full for days.
        attempts = [names.attempt_of(work.id) for work in place.dispatcher.attempts_of(names.job_prefix(manifest.key))]
        assert max(attempts) >= 5
        assert len(attempts) <= 4
        assert 1 in attempts
        disk.empty()
        place.until_ended(manifest)
        record = place.record(manifest)
        assert record is not None
        assert record.outcome is Outcome.NO_LIVER
        assert record.objects
