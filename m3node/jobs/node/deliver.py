"""The role that delivers: takes what waits in the outbox to its destinations, and acts on reports of commitment."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from m3node.audit import trail
from m3node.delivery.association import hang_up_all
from m3node.delivery.commitment import act_on_reports, review_stored
from m3node.delivery.courier import Courier
from m3node.delivery.outbox import Box, waiting
from m3node.delivery.state import ENDS
from m3node.errors import DatabaseError
from m3node.jobs.engine import deliveries, names, setup
from m3node.jobs.engine.desk import Desk
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger.database import open_engine
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.trouble import Trouble
from m3node.layout import DataLayout
from m3node.metrics import counting
from m3node.settings import Settings

_log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
"""How often reports of commitment are looked for."""
REVIEW_SECONDS = 30.0
"""How often it is looked for reports that do not come, and for deliveries that were claimed and not begun."""


def run_deliver(settings: Settings, stop: threading.Event) -> None:
    """Deliver until ``stop`` is set; objects on the wire may be answered within ``jobs.drain_seconds``.

    What a peer has not answered by then is sent again later: the process ends under it, and this call does not return.

    Parameters
    ----------
    settings : Settings
        The tree; the database is ready (`m3node.jobs.engine.setup.prepare`), and the caller holds the role's lock: two
        processes that deliver would send everything twice.
    stop : threading.Event
        Ends the role in order.
    """
    if not deliver_until(settings, stop):
        trail.write_now()
        counting.write_now()
        logging.shutdown()
        os._exit(0)


def deliver_until(settings: Settings, stop: threading.Event) -> bool:
    """Deliver until ``stop`` is set.

    Returns
    -------
    bool
        False when a thread still waits for a peer's answer.
    """
    layout = DataLayout(settings.data_dir)
    layout.create()
    _name_orphans(layout, settings)
    engine = open_engine(settings)
    desk = Desk(layout, settings, Courier(settings), Ledger(engine), Dispatcher(settings))
    deliveries.use(desk)
    setup.launch(settings, executor_id=names.DELIVER_EXECUTOR, queues=[names.DELIVERIES])
    # By itself: a peer that does not answer a release must not hold up the reports.
    threading.Thread(target=_tidy, args=(desk.courier, stop), name="tidy", daemon=True).start()
    _sweep_until(desk, stop)
    desk.stop()
    setup.stop(settings.jobs.drain_seconds)
    ended = not desk.running
    if ended:
        desk.courier.close()
    else:
        seconds = settings.jobs.drain_seconds
        desk.courier.starts.take_back()
        _log.warning("an answer did not come within %g s (jobs.drain_seconds); it is sent again later", seconds)
    hang_up_all()
    desk.dispatcher.close()
    engine.dispose()
    return ended


def sweep(desk: Desk) -> None:
    """Act on the reports of commitment that have come in."""
    for entry in act_on_reports(desk.layout, desk.settings, time.time()):
        desk.note(entry)
        if entry.state not in ENDS:
            desk.wake(entry)


def review(desk: Desk) -> None:
    """Send again what was never reported, and take up deliveries that were claimed and not begun."""
    for entry in review_stored(desk.layout, desk.settings, time.time()):
        desk.note(entry)
        if entry.state not in ENDS:
            desk.wake(entry)
    try:
        claimed = desk.dispatcher.begun_by(names.DELIVER_EXECUTOR)
        now = time.time()
        lost = [work for work in claimed if work.id not in desk.running and now - work.taken_at > REVIEW_SECONDS]
        desk.dispatcher.hand_back(lost)
    except DatabaseError as error:
        _log.debug("%s", error)  # the engine's own threads say so already


def _sweep_until(desk: Desk, stop: threading.Event) -> None:
    pause = min(REVIEW_SECONDS, desk.settings.delivery.commitment_seconds / 2)
    next_review = time.monotonic() + pause
    reports = Trouble("reports of commitment wait")

    def look() -> None:
        nonlocal next_review
        sweep(desk)
        if time.monotonic() >= next_review:
            review(desk)
            next_review = time.monotonic() + pause

    while not stop.wait(SWEEP_SECONDS):
        reports.keeps_from(look)


def _tidy(courier: Courier, stop: threading.Event) -> None:
    while not stop.wait(SWEEP_SECONDS / 2):
        courier.close_idle()


def _name_orphans(layout: DataLayout, settings: Settings) -> None:
    """Say so when results wait for a destination that the settings no longer name."""
    known = {destination.name for destination in settings.destinations}
    for folder in sorted(path for path in layout.outbox.iterdir() if path.is_dir()):
        left = len(waiting(Box(Path(folder))))
        if folder.name not in known and left:
            _log.warning("%d objects wait for %s, which is no destination any more", left, folder.name)
