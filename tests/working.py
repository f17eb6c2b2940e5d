"""Worker processes of the tests: the real worker on a slot, told how its steps behave, and what it did.

As a program: ``working.py CONFIG SLOT MANNER SECONDS``. Every step that begins or ends is a line in ``steps``, beside
the configuration.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lines import whole_lines
from m3node.evaluation.ct_writer import axial_geometry, seeded_uid, write_ct_series
from m3node.faults import VARIABLE
from m3node.intake.series.manifest import Manifest, make_manifest, write_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.jobs.answer.record import RunRecord, read_record
from m3node.jobs.engine.actions import Actions
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.engine.reconcile import Reconciler
from m3node.jobs.engine.setup import prepare
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.notes import Ledger
from m3node.layout import DataLayout
from m3node.settings import Settings, load
from postgres import PASSWORD

SHAPE = (10, 64, 64)


@dataclass(frozen=True)
class Done:
    """A step that a worker began (``+``) or ended (``-``)."""

    at: float
    slot: int
    step: str
    run: str
    edge: str


class Workplace:
    """A data folder with its database, and the workers on it.

    Parameters
    ----------
    root : Path
        Gets settings, log and data folder.
    database_url : str
        Empty for SQLite.
    toml : str
        More settings.
    """

    def __init__(self, root: Path, database_url: str = "", toml: str = "") -> None:
        self.root = root
        self.config = root / "m3node.toml"
        url = f'database_url = "{database_url}"\n' if database_url else ""
        self.config.write_text(f'data_dir = "{root / "data"}"\n{url}{toml}')
        self.settings: Settings = load(self.config)
        self.layout = DataLayout(self.settings.data_dir)
        self.faults = root / "faults"
        self.faults.mkdir()
        self.log_file = root / "log"
        prepare(self.settings)
        self.dispatcher = Dispatcher(self.settings)
        self.ledger = Ledger(open_engine(self.settings))
        self.actions = Actions(self.settings, self.dispatcher, self.ledger)
        self.reconciler = Reconciler(self.settings, self.dispatcher, self.ledger)
        self._processes: list[subprocess.Popen[bytes]] = []

    def work(self, slot: int = 0, manner: str = "real", seconds: float = 0.0) -> subprocess.Popen[bytes]:
        """Start a worker.

        Parameters
        ----------
        slot : int
            Its slot.
        manner : str
            ``real``: as it is. ``slow``: looking for lesions takes ``seconds`` longer, and tells its progress;
            ``stuck``: it tells nothing meanwhile. ``short``: all that a run does is to wait for ``seconds``, and for
            `let_go` after `hold`, and be rejected. ``deadly``: looking at the run that the file ``deadly`` names kills
            the worker.
        seconds : float
            See there.
        """
        command = [sys.executable, __file__, str(self.config), str(slot), manner, str(seconds)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")}
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**environment, VARIABLE: str(self.faults)})
        self._processes.append(process)
        return process

    def hold(self) -> None:
        """Let no ``short`` run end until `let_go`."""
        (self.root / "hold").touch()

    def let_go(self) -> None:
        """Undo `hold`."""
        (self.root / "hold").unlink()

    def enqueue(self, manifest: Manifest) -> bool:
        """Hand a manifest to the engine."""
        return self.dispatcher.enqueue_job(manifest.key, run_of(manifest), manifest.priority)

    def series(self, number: int, priority: str = "routine") -> Manifest:
        """A manifest of a series of its own, without a liver."""
        folder = self.layout.spool / "study" / seeded_uid(("working", number), "series")
        hu = np.random.default_rng(number).integers(-50, 50, SHAPE)
        files = write_ct_series(folder, hu, axial_geometry(SHAPE, (2.0, 1.0, 1.0)), seed=("working", number))
        (stack,) = group_stacks([read_header(path, self.layout.spool) for path in files])
        manifest = make_manifest(stack, root=self.layout.spool, priority=priority, created_at=float(number))
        write_manifest(manifest, self.layout.manifests)
        return manifest

    def record(self, manifest: Manifest) -> RunRecord | None:
        """What became of a manifest's run; None before its end."""
        return read_record(self.layout.results / run_of(manifest))

    def until(self, condition: Callable[[], object], seconds: float = 300.0) -> None:
        """Wait until something is so; fail with the workers' log when it is not so in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def until_ended(self, *manifests: Manifest) -> None:
        """Wait until runs have ended."""
        self.until(lambda: all(self.record(manifest) is not None for manifest in manifests))

    def steps(self, step: str = "", run: str = "", edge: str = "+") -> list[Done]:
        """The steps that were begun or ended, in order."""
        done = [Done(**json.loads(line)) for line in whole_lines(self.root / "steps")]
        return [item for item in done if item.edge == edge and step in ("", item.step) and run in ("", item.run)]

    def begun(self, step: str, manifest: Manifest) -> bool:
        """Whether somebody has begun a step of a run."""
        return bool(self.steps(step, run_of(manifest)))

    @property
    def log(self) -> str:
        """What the workers said."""
        return self.log_file.read_text(encoding="utf-8") if self.log_file.exists() else ""

    def close(self) -> None:
        """Leave nothing running."""
        for process in self._processes:
            process.kill()
            process.wait()
        self.dispatcher.close()
        self.ledger.engine.dispose()


@contextmanager
def workplace(root: Path, database_url: str = "", toml: str = "") -> Iterator[Workplace]:
    """Have a data folder to work on; in the end nothing unexpected stands in the workers' log."""
    place = Workplace(root, database_url, toml)
    try:
        yield place
        assert "Traceback" not in place.log, place.log
        assert "database is locked" not in place.log, place.log
        assert PASSWORD not in place.log
    finally:
        place.close()


def run_of(manifest: Manifest) -> str:
    """Name of a manifest's run."""
    return Path(manifest.file_name).stem


def _main(config: str, slot: str, manner: str, seconds: str) -> None:
    from m3node.errors import InputRejected
    from m3node.jobs.engine import jobs, work
    from m3node.jobs.node.supervisor import stop_on_signals
    from m3node.jobs.node.worker import run_worker
    from m3node.logs import set_up
    from m3node.rejection import Reason

    root = Path(config).parent
    find, work_on = work.find, work.work_on

    def note(step: str, run: str, edge: str) -> None:
        line = json.dumps({"at": time.time(), "slot": int(slot), "step": step, "run": run, "edge": edge})
        with (root / "steps").open("a") as stream:
            stream.write(f"{line}\n")

    def noted(bench: Any, step: str, run: str, *more: Any) -> Any:
        note(step, run, "+")
        words = work_on(bench, step, run, *more)
        note(step, run, "-")
        return words

    def behaving(manifest: Any, folder: Any, settings: Any, detector: Any, progress: Any, **more: Any) -> Any:
        if manner == "short":
            time.sleep(float(seconds))
            while (root / "hold").exists():
                time.sleep(0.02)
            raise InputRejected(Reason.FAILED, "not looked at in this test")
        if manner == "deadly" and (root / "deadly").read_text() == folder.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if manner == "stuck":
            time.sleep(float(seconds))
        if manner == "slow":
            for tick in range(20):
                progress("looking", tick, 20)
                time.sleep(float(seconds) / 20)
        return find(manifest, folder, settings, detector, progress, **more)

    if manner == "short":
        work.assemble = lambda *_, **__: None  # type: ignore[assignment, return-value]
    work.find = behaving
    jobs.work_on = noted
    settings = load(Path(config))
    set_up(settings.log, f"slot {slot}")
    stop = threading.Event()
    stop_on_signals(stop, signal.SIGTERM)
    run_worker(settings, int(slot), stop)


if __name__ == "__main__":
    _main(*sys.argv[1:])
