"""The jobs: two workers against one, how soon a series is begun, and what 5,000 queued jobs cost.

The workers are those of the tests (``tests/working.py``): the real ones, on a slot each, whose jobs only wait. The
first two tables are made on the database that ``--database`` names; the third is the whole node on SQLite.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from m3node.intake.series.manifest import Manifest, make_manifest, write_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import Stack, group_stacks
from m3node.jobs.node.clerk import run_clerk
from quick_series import SECONDS, quick_environment, quick_series
from served import ServedNode
from table import RatioRow, print_ratios
from working import Workplace, run_of, workplace

PAIRS, JOBS, JOB_SECONDS = 3, 40, 0.3
SAMPLES, QUEUED = 30, 500
LONG_SECONDS = 1.0
MANY = 5_000
IDLE_SECONDS = 20.0
SETTLE_SECONDS = 10.0
LATER = 3_600.0
BAR_SECONDS = 1.0
POSTGRESQL, SQLITE = "postgresql", "sqlite"

CONSOLE = Console(width=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=(POSTGRESQL, SQLITE), default=POSTGRESQL)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the first table")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="series of each row of the second table")
    parser.add_argument("--queued", type=int, default=MANY, help="jobs of the third table")
    wanted = parser.parse_args()
    with _databases(wanted.database) as database:
        met = [
            _throughput(database, wanted.database, wanted.pairs),
            _latency(database, wanted.database, wanted.samples),
        ]
    met.append(_many(wanted.queued))
    return int(not all(met))


def _throughput(database: Callable[[], str], name: str, pairs: int) -> bool:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(pairs):
        for workers in (1, 2):
            with _place(database()) as place:
                manifests = _copies(place, JOBS)
                for slot in range(workers):
                    place.work(slot, "short", JOB_SECONDS)
                place.until(lambda: place.log.count("is ready") == workers)  # noqa: B023
                place.reconciler.new_manifests()
                place.until_ended(*manifests)
                begun = [done.at for done in place.steps("assemble")]
                ended = [done.at for done in place.steps("close", edge="-")]
                seconds[workers].append(max(ended) - min(begun))
    title = f"{JOBS} jobs of {JOB_SECONDS} s on {name}: two workers (ours) against one (rival)"
    return print_ratios(title, [RatioRow("jobs", seconds[2], seconds[1], bar=1 / 1.8)])


def _latency(database: Callable[[], str], name: str, samples: int) -> bool:
    idle = _idle_latency(database(), samples)
    busy, next_one = _busy_latency(database(), max(3, samples // 3))
    table = Table(title=f"Series complete → job begun, on {name}, {QUEUED} of lower priority queued")
    for heading in ("what", "series", "median s", "p95 s", "max s", "bar", "met"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    met = True
    for what, values in (
        ("idle worker: manifest there → begun", idle),
        ("two busy workers: the job before ended → STAT begun", busy),
    ):
        p95 = quantiles(values, n=20, method="inclusive")[-1]
        good = p95 <= BAR_SECONDS
        met &= good
        figures = [f"{value:.3f}" for value in (median(values), p95, max(values))]
        table.add_row(what, str(len(values)), *figures, f"p95 ≤ {BAR_SECONDS:g}", "yes" if good else "NO")
    CONSOLE.print(table)
    CONSOLE.print(f"  {next_one} of {len(busy)} STAT series were the next to be begun after they were handed over")
    return met and next_one == len(busy)


def _idle_latency(url: str, samples: int) -> list[float]:
    """The queue holds others, of lower priority, which have to wait; the worker waits as well."""
    with _place(url) as place:
        for manifest in _copies(place, QUEUED):
            place.dispatcher.enqueue_job(manifest.key, run_of(manifest), "routine", delay=LATER)
        place.work(0, "short", 0.05)
        place.until(lambda: "is ready" in place.log)
        with _clerk(place):
            found = []
            for manifest in _copies(place, samples, first=QUEUED, priority="stat", write=False):
                there = _written(place, manifest)
                place.until_ended(manifest)
                found.append(place.steps("assemble", run_of(manifest))[0].at - there)
                time.sleep(0.05 + 0.01 * (len(found) % 10))  # at every phase of who looks how often
    return found


def _busy_latency(url: str, samples: int) -> tuple[list[float], int]:
    """Two workers that are never idle; each STAT series comes in the midst of their jobs."""
    with _place(url) as place:
        _copies(place, QUEUED)
        for slot in (0, 1):
            place.work(slot, "short", LONG_SECONDS)
        place.reconciler.new_manifests()
        place.until(lambda: len(place.steps("assemble")) >= 4)
        found, next_one = [], 0
        with _clerk(place):
            for number in range(samples):
                (manifest,) = _copies(place, 1, first=QUEUED + number, priority="stat", write=False)
                run = run_of(manifest)
                _written(place, manifest)
                place.until(lambda: place.dispatcher.attempts_of(f"job:{manifest.key}:"))  # noqa: B023
                handed = time.time()
                place.until(lambda: place.steps("assemble", run))  # noqa: B023
                (begun,) = place.steps("assemble", run)
                ends = [done.at for done in place.steps("close", edge="-") if done.slot == begun.slot]
                found.append(begun.at - max(at for at in ends if at < begun.at))
                # A worker may have taken one from the queue in the moment before it was handed over.
                next_one += not any(handed + 0.1 < other.at < begun.at for other in place.steps("assemble"))
                time.sleep(0.37)
    return found, next_one


def _many(queued: int) -> bool:
    """The whole node, whose worker is at one job that does not end, with all others queued behind it."""
    toml = '[listener]\ncallers = [{ae_title = "PACS"}]\nreceivers = 2\n[detector]\nname = "quick"\n'
    toml += "[jobs]\ndrain_seconds = 0\n"
    with tempfile.TemporaryDirectory(prefix="m3node-jobs-") as folder:
        root = Path(folder) / "node"
        with _placed(root, "") as place:
            (first,) = _stacks(quick_series(place.layout.spool / "long", "long"), place)
            endless = make_manifest(first, root=place.layout.spool, priority="stat")
            manifests = [endless, *_copies(place, queued)]
            write_manifest(endless, place.layout.manifests)
            for manifest in manifests:
                place.dispatcher.enqueue_job(manifest.key, run_of(manifest), manifest.priority)
            # The keeper would take the copies for 5,000 generations of one series, and read them all.
            shutil.rmtree(place.layout.spool / "study")
        node = ServedNode(root, toml, quick_environment(**{SECONDS: LATER}))
        with _running(node):
            status = [sys.executable, "-m", "m3node", "status", "--config", str(node.config)]
            node.until(lambda: f"{queued}" in _said(status), 300)
            node.until(lambda: f"run {run_of(endless)} begins" in node.log)
            time.sleep(SETTLE_SECONDS)  # the first pass over everything
            before, began = _cpu(node.pid), time.monotonic()
            time.sleep(IDLE_SECONDS)
            after, passed = _cpu(node.pid), time.monotonic() - began
            table = Table(title=f"The node at rest but for one job, {queued} jobs queued, over {passed:.0f} s")
            for heading in ("process", "% of a core", "MB (PSS)"):
                table.add_column(heading, justify="left" if heading == "process" else "right")
            names = _names(node.log, node.pid)
            for pid, seconds in sorted(after.items()):
                share = 100 * (seconds - before.get(pid, seconds)) / passed
                table.add_row(names.get(pid, "receiver, tracker"), f"{share:.1f}", f"{_pss_mb(pid):.0f}")
            CONSOLE.print(table)
            times = []
            for _ in range(5):
                started = time.perf_counter()
                _said(status)
                times.append(time.perf_counter() - started)
    met = median(times) <= BAR_SECONDS
    CONSOLE.print(
        f"m3node status with {queued} jobs queued: {median(times):.2f} s (median of {len(times)}, the process's start "
        f"included), bar {BAR_SECONDS:g} s: {'met' if met else 'NOT MET'}"
    )
    return met


@contextmanager
def _databases(name: str) -> Iterator[Callable[[], str]]:
    """Give a function that makes an empty database and returns its URL; empty for SQLite."""
    if name == SQLITE:
        yield lambda: ""
        return
    import psycopg  # noqa: PLC0415

    from postgres import running_postgres  # noqa: PLC0415

    with running_postgres() as server:
        count = 0

        def fresh() -> str:
            nonlocal count
            count += 1
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE bench{count}")
            return server.url(f"bench{count}")

        yield fresh


@contextmanager
def _place(url: str) -> Iterator[Workplace]:
    with tempfile.TemporaryDirectory(prefix="m3node-jobs-") as folder, _placed(Path(folder) / "place", url) as place:
        yield place


@contextmanager
def _placed(root: Path, url: str) -> Iterator[Workplace]:
    root.mkdir()
    with workplace(root, url) as place:
        yield place


@contextmanager
def _clerk(place: Workplace) -> Iterator[None]:
    """What hands new manifests over to the workers."""
    stop = threading.Event()
    thread = threading.Thread(target=run_clerk, args=(place.settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _copies(
    place: Workplace, count: int, *, first: int = 0, priority: str = "routine", write: bool = True
) -> Sequence[Manifest]:
    """Manifests of the same slices under other names."""
    folder = place.layout.spool / "study"
    if not folder.exists():
        place.series(0)
        for path in place.layout.manifests.iterdir():
            path.unlink()
    (stack,) = _stacks(sorted(folder.rglob("*.dcm")), place)
    made = []
    for number in range(first, first + count):
        other = replace(stack, key=replace(stack.key, stack=f"{number:08x}"))
        made.append(make_manifest(other, root=place.layout.spool, priority=priority))
        if write:
            write_manifest(made[-1], place.layout.manifests)
    return made


def _stacks(files: Sequence[Path], place: Workplace) -> Sequence[Stack]:
    return group_stacks([read_header(path, place.layout.spool) for path in files])


@contextmanager
def _running(node: ServedNode) -> Iterator[None]:
    try:
        node.start()
        yield
        node.stop()
    finally:
        node.clean_up()


def _written(place: Workplace, manifest: Manifest) -> float:
    write_manifest(manifest, place.layout.manifests)
    return time.time()


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _names(log: str, first: int) -> dict[int, str]:
    words = [line.split("started ")[1] for line in log.splitlines() if "node: started " in line]
    found = {int(word.split("(process ")[1].rstrip(")")): word.split(" ")[0] for word in words}
    return {first: "supervisor", **found}


def _cpu(root: int) -> dict[int, float]:
    """Seconds of processor time of a process and all below it."""
    tick = os.sysconf("SC_CLK_TCK")
    found, pids = {}, [root]
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += [int(child) for child in children.read_text().split()]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[pid] = (int(fields[11]) + int(fields[12])) / tick
    return found


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1]) * 1.024 / 1000.0
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
