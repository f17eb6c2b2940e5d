"""What a worker has claimed of the engine's queue, and is not at: taken up again, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from m3node.intake.series.manifest import Manifest
from m3node.jobs.answer.steps import make_detector
from m3node.jobs.engine import names
from m3node.jobs.engine.bench import Bench
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.node.worker import BEAT_SECONDS, take_up_stranded
from working import Workplace, workplace


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path) as place:
        yield place


def claimed(place: Workplace, number: int, slot: int, seconds: float) -> Manifest:
    """A manifest whose job a slot took from the queue so many seconds ago."""
    manifest = place.series(number)
    place.enqueue(manifest)
    engine = open_engine(place.settings, "engine")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE workflow_status SET status = 'PENDING', executor_id = :executor, started_at_epoch_ms = :at "
                "WHERE workflow_uuid = :id"
            ),
            {
                "executor": names.slot_executor(slot),
                "at": int(1000 * (time.time() - seconds)),
                "id": names.job_prefix(manifest.key) + "1",
            },
        )
    engine.dispose()
    return manifest


def state(place: Workplace, manifest: Manifest) -> str:
    (work,) = place.dispatcher.attempts_of(names.job_prefix(manifest.key))
    assert work.queue == names.JOBS
    return work.state


def test_a_job_that_was_claimed_and_not_begun_goes_back_and_no_other_one(place: Workplace) -> None:
    long_ago, just_now = 2 * BEAT_SECONDS, BEAT_SECONDS / 2
    lost = claimed(place, 0, slot=0, seconds=long_ago)
    left_alone = [
        at_hand := claimed(place, 1, slot=0, seconds=long_ago),
        claimed(place, 2, slot=0, seconds=just_now),
        claimed(place, 3, slot=1, seconds=long_ago),
    ]
    bench = Bench(
        layout=place.layout,
        settings=place.settings,
        detector=make_detector(place.settings),
        ledger=place.ledger,
        dispatcher=place.dispatcher,
        name=names.slot_executor(0),
    )
    with bench.job(names.job_prefix(at_hand.key) + "1"):
        take_up_stranded(bench)
    assert state(place, lost) == "ENQUEUED"
    assert [state(place, manifest) for manifest in left_alone] == ["PENDING"] * 3
