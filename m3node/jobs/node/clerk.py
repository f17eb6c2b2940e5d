"""The clerk: keeps files, engine and ledger in agreement, and the house in order.

Manifests are handed over the moment they come, whatever else takes its time: that has a thread of its own. Neither a
database that is away nor a full disk ends the clerk; each is logged once a minute, and what was not done is done later,
since the files say that it is still to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.engine.reconcile import Reconciler
from m3node.jobs.keeping.house import Housekeeping
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.sync import catch_up
from m3node.jobs.trouble import Trouble
from m3node.layout import DataLayout
from m3node.settings import Settings

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""How often it looks for new manifests; a look at a folder's time is all that costs when there are none."""
ALL_SECONDS = 60.0
"""How often it looks at everything, and keeps house."""
FOLLOW_SECONDS = 2.0
"""How often the ledger follows the files: for what no role notes, as series that come in, which the page shows."""
IDLE = 20
"""A pass over the files that takes long is followed by a pause so many times longer."""
AGAIN_SECONDS = 1.0
"""After trouble with disk or database."""


def run_clerk(settings: Settings, stop: threading.Event) -> None:
    """Hand over what is to be done, follow the files and keep house until ``stop`` is set.

    Parameters
    ----------
    settings : Settings
        The tree; the database is ready.
    stop : threading.Event
        Ends it.
    """
    DataLayout(settings.data_dir).create()
    with ThreadPoolExecutor(1, "house") as pool:
        house = pool.submit(_keep_in_order, settings, stop)
        # What nobody expected, in either thread, ends the process, and the supervisor starts it again.
        try:
            _hand_over(settings, stop, house)
        finally:
            stop.set()  # also then: the pool waits for the other one
        house.result()


def _hand_over(settings: Settings, stop: threading.Event, house: Future[None]) -> None:
    reconciler = Reconciler(settings, Dispatcher(settings), Ledger(open_engine(settings)))
    trouble = Trouble("new series cannot be handed over to the workers")
    while not house.done():
        failed = trouble.keeps_from(reconciler.new_manifests)
        if stop.wait(AGAIN_SECONDS if failed else LOOK_SECONDS):
            return


def _keep_in_order(settings: Settings, stop: threading.Event) -> None:
    layout = DataLayout(settings.data_dir)
    ledger = Ledger(open_engine(settings))
    dispatcher = Dispatcher(settings)
    reconciler = Reconciler(settings, dispatcher, ledger)
    housekeeping = Housekeeping(settings, ledger, dispatcher)
    work: tuple[tuple[Trouble, Callable[[], object], float], ...] = (
        (Trouble("the ledger cannot follow the files"), lambda: catch_up(layout, ledger), FOLLOW_SECONDS),
        (Trouble("jobs and files cannot be compared"), reconciler.all, ALL_SECONDS),
        (Trouble("what is old cannot be removed"), housekeeping.keep_house, ALL_SECONDS),
    )
    due = [0.0] * len(work)
    while not stop.wait(LOOK_SECONDS):
        for number, (trouble, do, pause) in enumerate(work):
            begun = time.monotonic()
            if begun < due[number]:
                continue
            failed = trouble.keeps_from(do)
            now = time.monotonic()
            due[number] = now + (AGAIN_SECONDS if failed else max(pause, IDLE * (now - begun)))
