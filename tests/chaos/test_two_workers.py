"""Two workers on one PostgreSQL: each of 200 jobs runs once, and a dead worker's job goes on where it was."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from working import Workplace, run_of, workplace

JOBS = 200


@pytest.mark.slow
def test_two_hundred_jobs_run_once_and_a_dead_workers_job_goes_on_after_its_last_finished_step(
    tmp_path: Path, postgres_url: str
) -> None:
    with workplace(tmp_path, postgres_url) as place:
        manifests = [place.series(number) for number in range(JOBS)]
        assert place.reconciler.new_manifests() == JOBS
        processes = {slot: place.work(slot, "short", 0.05) for slot in (0, 1)}

        place.until(lambda: len(place.steps("close", edge="-")) >= JOBS / 4)
        dead, left = _killed_before_detect(place, processes)
        asked = time.time()
        assert f"1 jobs of slot {dead}" in place.actions.take_over(dead)
        place.until(lambda: place.steps("detect", left))
        (again,) = place.steps("detect", left)
        assert again.slot == 1 - dead
        print(f"taken over: goes on after {again.at - asked:.2f} s")

        processes[dead] = place.work(dead, "short", 0.05)
        place.until(lambda: place.log.count(f"slot {dead} is ready") == 2)
        place.until(lambda: len(place.steps("close", edge="-")) >= JOBS / 2)
        dead, left = _killed_before_detect(place, processes)
        asked = time.time()
        place.work(dead, "short", 0.05)  # what it had begun is queued again, first, for whoever is free
        place.until(lambda: place.steps("detect", left))
        (again,) = place.steps("detect", left)
        print(f"slot started again: goes on after {again.at - asked:.2f} s")

        place.until_ended(*manifests)
        for step in ("assemble", "detect", "close"):
            assert Counter(done.run for done in place.steps(step)) == Counter(run_of(item) for item in manifests), step
        share = Counter(done.slot for done in place.steps("detect"))
        assert min(share[0], share[1]) >= JOBS / 10


def _killed_before_detect(place: Workplace, processes: dict[int, subprocess.Popen[bytes]]) -> tuple[int, str]:
    """Have one of the workers die between two steps; return its slot, and the run that it was at."""
    (place.faults / "detect.before").touch()
    place.until(lambda: any(process.poll() is not None for process in processes.values()))
    dead = next(slot for slot, process in processes.items() if process.poll() is not None)
    last = [done for done in place.steps() if done.slot == dead][-1]
    assert last.step == "assemble"
    return dead, last.run
