"""What a worker process has at hand for its jobs, and how they are told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from m3node.detectors.protocols import Detector
from m3node.imaging.volume import CTVolume
from m3node.jobs.answer.starts import cancel_reason, take_back
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger.notes import Ledger
from m3node.layout import DataLayout
from m3node.progress import Progress
from m3node.settings import Settings

NOTE_SECONDS = 1.0
"""How often the progress of a step is noted, and a person's wish to cancel looked for."""


class Abandoned(BaseException):
    """Leaves a job where its last finished step left it; the engine records nothing, and begins that step again.

    No `Exception`: nothing may take it for a failure of the step.
    """


class Cancelled(BaseException):
    """Leaves a step, because a person has cancelled the run."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Bench:
    """What the jobs of one worker process share.

    Attributes
    ----------
    layout, settings
        The data folder and the tree.
    detector : Detector
        Loaded once.
    ledger : Ledger
        Told what was done.
    dispatcher : Dispatcher
        Hands deliveries to the engine.
    name : str
        The worker, as records name it.
    """

    layout: DataLayout
    settings: Settings
    detector: Detector
    ledger: Ledger
    dispatcher: Dispatcher
    name: str
    _volume: tuple[str, CTVolume] | None = None
    _running: set[str] = field(default_factory=set)
    _step: tuple[Path, str] | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _deadline: float = 0.0

    def stop(self, seconds: float) -> None:
        """Let no further step begin; the one at hand may take so long, and is then left."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()

    def between_steps(self) -> None:
        """Leave the job here when the worker stops.

        Raises
        ------
        Abandoned
            It does.
        """
        if self._stopping.is_set():
            raise Abandoned

    @property
    def running(self) -> frozenset[str]:
        """IDs of the workflows that this process is at."""
        return frozenset(self._running)

    @contextmanager
    def job(self, workflow_id: str) -> Iterator[None]:
        """Be at a job; its volume is let go in the end, however that comes."""
        self._running.add(workflow_id)
        try:
            yield
        finally:
            self.let_volume_go()
            self._running.discard(workflow_id)

    @contextmanager
    def step(self, folder: Path, step: str) -> Iterator[None]:
        """Be at a step, so that its start is not counted when it is left in order."""
        self._step = (folder, step)
        try:
            yield
        except (Abandoned, Cancelled):
            take_back(folder, step)
            raise
        finally:
            self._step = None

    def abandon(self) -> None:
        """Take back the start of the step at hand: the process is about to end under it."""
        at_hand = self._step
        if at_hand is not None:
            take_back(*at_hand)

    def keep_volume(self, run: str, volume: CTVolume) -> None:
        """Keep a volume for the next step of its run."""
        self._volume = (run, volume)

    def let_volume_go(self) -> None:
        """Forget the volume: the steps that follow need its memory."""
        self._volume = None

    def volume_of(self, run: str) -> CTVolume | None:
        """Return the volume of a run, where this process has assembled it."""
        return self._volume[1] if self._volume is not None and self._volume[0] == run else None

    def progress(self, run: str) -> Progress:
        """Return what a step of a run tells how far it is, and what ends it in its midst when it must end.

        The callable may be called from any thread. It raises `Abandoned` when the time to stop is over, and
        `Cancelled` when a person has cancelled the run.
        """
        folder = self.layout.results / run
        last = ("", 0.0)

        def tell(stage: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if self._stopping.is_set() and now >= self._deadline:
                raise Abandoned
            if stage == last[0] and now - last[1] < NOTE_SECONDS and done < total:
                return
            last = (stage, now)
            if reason := cancel_reason(folder):
                raise Cancelled(reason)
            self.ledger.note_stage(run, stage, done, total)

        return tell
