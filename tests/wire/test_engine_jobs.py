"""Jobs on the real engine, with workers that are processes of their own: SQLite files, and a PostgreSQL server."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3node.jobs.engine import names
from m3node.jobs.engine.actions import Refused
from postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from working import Workplace, run_of, workplace

LIMIT = "[jobs]\npoison_limit = 2\nretry_seconds = 0.5\n"
ARCHIVE = '[[destinations]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = 1\n'


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty for SQLite."""
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path, toml=LIMIT + ARCHIVE) as place:
        yield place


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Iterator[Workplace]:
    """On SQLite, and again on PostgreSQL: for what the database has a part in."""
    with workplace(tmp_path, database_url, LIMIT + ARCHIVE) as place:
        yield place


def contents(folder: Path) -> dict[str, str]:
    """The objects in a folder, and the digest of their bytes."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.dcm"))}


def test_a_job_that_is_handed_over_three_times_runs_once(either: Workplace) -> None:
    manifest = either.series(0)
    assert [either.enqueue(manifest) for _ in range(3)] == [True, False, False]
    either.work()
    either.until_ended(manifest)
    either.until(lambda: not either.dispatcher.live(names.JOBS))
    assert [done.step for done in either.steps()] == ["assemble", "detect", "build", "close"]
    record = either.record(manifest)
    assert record is not None
    waiting = {path.stem for path in (either.layout.outbox / "archive").glob("*.json")}
    assert waiting == {f"{run_of(manifest)}.{item.kind.value}" for item in record.objects}
    assert {work.subject for work in either.dispatcher.live(names.DELIVERIES).values()} == {
        f"send:archive:{name}:" for name in waiting
    }
    assert either.reconciler.all().jobs == 0


@pytest.mark.parametrize("point", ["detect.before", "build.inside", "build.after", "close.inside"])
def test_a_killed_worker_goes_on_after_its_last_finished_step(place: Workplace, point: str) -> None:
    manifest = place.series(0)
    place.enqueue(manifest)
    (place.faults / point).touch()
    assert place.work().wait(60) == -signal.SIGKILL
    folder = place.layout.results / run_of(manifest)
    before = contents(folder)
    place.work()
    place.until_ended(manifest)
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    record = place.record(manifest)
    assert record is not None
    assert after == {item.path.name: item.sha256 for item in record.objects}
    assert len(after) == 3
    step = point.partition(".")[0]
    repeated = {"detect.before": 0}.get(point, 1)
    steps = [done.step for done in place.steps()]
    assert steps.count(step) == 1 + repeated
    assert [name for name in steps if name != step] == [
        name for name in ("assemble", "detect", "build", "close") if name != step
    ]
    waiting = {path.stem for path in (place.layout.outbox / "archive").glob("*.json")}
    assert waiting == {f"{run_of(manifest)}.{item.kind.value}" for item in record.objects}


def test_a_step_that_takes_its_worker_down_is_set_aside_and_the_next_job_runs(either: Workplace) -> None:
    deadly, harmless = either.series(0), either.series(1)
    (either.root / "deadly").write_text(run_of(deadly))
    either.enqueue(deadly)
    either.enqueue(harmless)
    for _ in range(2):
        assert either.work(manner="deadly").wait(60) == -signal.SIGKILL
    either.work(manner="deadly")
    either.until_ended(deadly, harmless)
    aside, other = either.record(deadly), either.record(harmless)
    assert aside is not None
    assert aside.rejection is not None
    assert "the worker died 2 times in step detect" in aside.rejection.message
    assert other is not None
    assert other.objects
    (either.root / "deadly").write_text("")
    either.actions.requeue_run(run_of(deadly))
    either.until_ended(deadly)
    again = either.record(deadly)
    assert again is not None
    assert again.objects


def test_another_slot_takes_over_what_a_dead_one_had_begun(either: Workplace) -> None:
    manifest = either.series(0)
    either.enqueue(manifest)
    (either.faults / "build.inside").touch()
    either.work(0).wait(60)
    either.work(1)
    either.until(lambda: "slot 1 is ready" in either.log)
    assert either.record(manifest) is None
    assert "1 jobs of slot 0" in either.actions.take_over(0)
    either.until_ended(manifest)
    record = either.record(manifest)
    assert record is not None
    assert record.worker == "slot-1"
    assert len(either.steps("detect")) == 1


def test_a_slot_that_is_alive_is_neither_taken_over_nor_held_twice(place: Workplace) -> None:
    place.work(3)
    place.until(lambda: "slot 3 is ready" in place.log)
    with pytest.raises(Refused, match=r"slot 3 is alive \(process \d+ on "):
        place.actions.take_over(3)
    assert place.work(3).wait(60) == 1
    assert "worker-3 of the data folder" in place.log
    place.log_file.write_text("")  # the second one's own end is a traceback of this test's program


def test_an_urgent_series_is_the_next_to_start(place: Workplace) -> None:
    routine = [place.series(number) for number in range(6)]
    for manifest in routine:
        place.enqueue(manifest)
    place.hold()
    place.work(manner="short")
    place.until(lambda: place.begun("detect", routine[0]))
    urgent = place.series(10, "stat")
    place.enqueue(urgent)
    place.let_go()
    place.until_ended(*routine, urgent)
    order = [done.run for done in place.steps("assemble")]
    assert order.index(run_of(urgent)) == 1, order
    assert [run for run in order if run != run_of(urgent)] == [run_of(manifest) for manifest in routine]


def test_two_slots_share_forty_jobs_and_do_each_once(either: Workplace) -> None:
    for slot in (0, 1):
        either.work(slot, "short", 0.05)
    either.until(lambda: all(f"slot {slot} is ready" in either.log for slot in (0, 1)))
    manifests = [either.series(number) for number in range(40)]
    either.reconciler.new_manifests()
    either.until_ended(*manifests)
    done = either.steps("detect")
    assert sorted(item.run for item in done) == sorted(run_of(manifest) for manifest in manifests)
    assert min(sum(item.slot == slot for item in done) for slot in (0, 1)) >= 5


def test_a_worker_that_is_stopped_finishes_its_step_and_leaves_the_rest_for_later(place: Workplace) -> None:
    manifest = place.series(0)
    place.enqueue(manifest)
    worker = place.work(manner="slow", seconds=3.0)
    place.until(lambda: place.begun("detect", manifest))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert len(place.steps("detect", edge="-")) == 1
    assert place.steps("build") == []
    assert place.record(manifest) is None
    place.work(1)  # another slot: this one's need not be there again
    place.until_ended(manifest)
    assert len(place.steps("detect")) == 1


@pytest.mark.parametrize(("manner", "seconds"), [("slow", 60.0), ("stuck", 600.0)])
def test_a_step_that_has_no_time_left_is_abandoned_and_not_counted(tmp_path: Path, manner: str, seconds: float) -> None:
    with workplace(tmp_path, toml="[jobs]\ndrain_seconds = 0.5\npoison_limit = 1\n") as place:
        manifest = place.series(0)
        place.enqueue(manifest)
        worker = place.work(manner=manner, seconds=seconds)
        place.until(lambda: place.begun("detect", manifest))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert place.steps("detect", edge="-") == []
        place.work()
        place.until_ended(manifest)
        record = place.record(manifest)
        assert record is not None
        assert record.objects


def test_a_run_is_cancelled_while_it_waits_and_while_it_is_worked_on(place: Workplace) -> None:
    running, waiting = place.series(0), place.series(1)
    place.enqueue(running)
    place.enqueue(waiting)
    place.work(manner="slow", seconds=60.0)
    place.until(lambda: place.begun("detect", running))
    assert "is cancelled" in place.actions.cancel_run(run_of(waiting), "sent by mistake")
    assert "is being worked on" in place.actions.cancel_run(run_of(running), "sent by mistake")
    place.until_ended(running)
    for manifest in (running, waiting):
        record = place.record(manifest)
        assert record is not None
        assert (record.cancelled, record.objects) == ("sent by mistake", ())
    assert [done.run for done in place.steps("detect")] == [run_of(running)]
    assert list((place.layout.outbox).rglob("*.json")) == []


def test_the_reconciler_hands_over_what_an_empty_engine_does_not_know(place: Workplace) -> None:
    manifests = [place.series(number) for number in range(3)]
    place.enqueue(manifests[0])
    place.dispatcher.cancel([names.job_prefix(manifests[0].key) + "1"])
    assert place.reconciler.all().jobs == 3
    assert place.reconciler.all().jobs == 0
    place.work(manner="short")
    place.until_ended(*manifests)
    assert place.reconciler.all().jobs == 0
