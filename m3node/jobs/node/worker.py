"""The worker: holds a slot, loads the detector, and then takes one job at a time from the engine."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from m3node.errors import DatabaseError
from m3node.jobs.answer.steps import make_detector
from m3node.jobs.engine import jobs, names, setup
from m3node.jobs.engine.bench import Bench
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.locks import hold, slot_lock
from m3node.layout import DataLayout
from m3node.metrics import counting
from m3node.settings import Settings

_log = logging.getLogger(__name__)

BEAT_SECONDS = 30.0
"""How often a worker says that it is alive, and looks for jobs that are its own and that it is not at."""


def run_worker(settings: Settings, slot: int, stop: threading.Event) -> None:
    """Answer manifests until ``stop`` is set; the step at hand may finish within ``jobs.drain_seconds``.

    What the slot had begun when it was killed goes on first, after its last finished step; what is left when it is
    stopped in order goes back into the queue. A step that takes longer than there is time is left, and the process
    ends under it: this call then does not return, and the job waits for the slot.

    Parameters
    ----------
    settings : Settings
        The tree; the database is ready (`m3node.jobs.engine.setup.prepare`).
    slot : int
        From 0; one for each GPU. Slots of all machines with one data folder differ.
    stop : threading.Event
        Ends the worker in order.

    Raises
    ------
    RoleHeldError
        Another process holds the slot.
    """
    layout = DataLayout(settings.data_dir)
    layout.create()
    with hold(layout, slot_lock(slot)) as tenure:
        detector = make_detector(settings)
        bench = Bench(
            layout=layout,
            settings=settings,
            detector=detector,
            ledger=Ledger(open_engine(settings)),
            dispatcher=Dispatcher(settings),
            name=names.slot_executor(slot),
        )
        jobs.use(bench)
        setup.launch(settings, executor_id=bench.name, queues=[names.JOBS])
        identity = f"{detector.identity.name} {detector.identity.version}".strip()
        _log.info("slot %d is ready: detector %s", slot, identity)
        while True:
            bench.ledger.note_worker(slot, socket.gethostname(), os.getpid(), identity)
            if stop.wait(BEAT_SECONDS):
                break
            take_up_stranded(bench)
        ended = _drain(bench, settings.jobs.drain_seconds)
        tenure.leaves_something = not (ended and _hand_back(bench))
        if not tenure.leaves_something:
            bench.ledger.note_worker_gone(slot)
        if not ended:
            counting.write_now()
            logging.shutdown()
            os._exit(0)


def take_up_stranded(bench: Bench) -> None:
    """Put back jobs that the engine believes this worker to be at, and that it never heard of."""
    try:
        claimed = bench.dispatcher.begun_by(bench.name)
        lost = [work for work in claimed if work.id not in bench.running and time.time() - work.taken_at > BEAT_SECONDS]
        if lost:
            _log.warning("taking up %d jobs again that were claimed and not begun", len(lost))
            bench.dispatcher.hand_back(lost)
    except DatabaseError as error:
        _log.debug("%s", error)  # the engine's own threads say so already


def _hand_back(bench: Bench) -> bool:
    """Leave what was begun to whichever slot is there first: this one may not be there again, with other settings.

    Where that is not possible the slot stays among those that are looked for, and its jobs wait for it.
    """
    try:
        bench.dispatcher.hand_back(bench.dispatcher.begun_by(bench.name))
    except DatabaseError as error:
        _log.warning("what %s has begun waits for it: %s", bench.name, error)
        return False
    return True


def _drain(bench: Bench, seconds: float) -> bool:
    """Come to an end; return False when a step did not, and so has to end with the process."""
    bench.stop(seconds)
    setup.stop(seconds)
    if not bench.running:
        return True
    bench.abandon()
    _log.warning("a step did not end within %g s (jobs.drain_seconds); it is run again later", seconds)
    return False
