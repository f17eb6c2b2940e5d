"""The workflow that sends an object to a destination, and with it whatever else is due there.

Each entry of the outbox has a workflow that cares for it. It makes an attempt, and where the entry waits still, the
next attempt is enqueued with a delay and this one ends, so that nothing is held meanwhile. One that finds its entry
sent already, over the association that another one had open, sends what has come since.

While a destination is down, only the entry that found out cares for it; it probes the destination, and when that is up
again, everything else goes as well (`m3node.delivery.reach`).
"""

from __future__ import annotations

import logging

from dbos import DBOS

from m3node.jobs.engine import names
from m3node.jobs.engine.again import try_again
from m3node.jobs.engine.bench import Abandoned
from m3node.jobs.engine.desk import Desk, Words, attend_to
from m3node.logs import describe

_log = logging.getLogger(__name__)

_desk: Desk | None = None


def use(desk: Desk) -> None:
    """Set what the deliveries of this process share; before the engine is launched."""
    global _desk  # noqa: PLW0603 - the engine calls workflows with nothing but their arguments
    _desk = desk


def _at_hand() -> Desk:
    assert _desk is not None, "use() comes before launch()"
    return _desk


@DBOS.workflow(name=names.DELIVER, max_recovery_attempts=None)
def deliver(destination: str, name: str) -> Words:
    """Send an entry of a destination's outbox, and what else is due there.

    Parameters
    ----------
    destination : str
        Name of the destination.
    name : str
        Name of the entry.
    """
    desk = _at_hand()
    with desk.delivery(DBOS.workflow_id or ""):
        words: Words = {}
        while not words or words.get("more"):
            if desk.stopping:
                raise Abandoned
            words = attend(destination, name, bool(words))
        if "again" in words:
            try_again(
                desk.dispatcher,
                names.DELIVER,
                names.DELIVERIES,
                destination,
                name,
                priority=words["priority"],
                delay=words["again"],
                partition=destination,
            )
        return words


@DBOS.step(name="attend")
def attend(destination: str, name: str, goes_on: bool) -> Words:
    """Make a round over a destination's outbox."""
    desk = _at_hand()
    try:
        return attend_to(desk, destination, name, goes_on=goes_on)
    except OSError as error:
        desk.trouble(destination).met(error)
    except Exception as error:  # noqa: BLE001 - an error that leaves a workflow would end it for good
        _log.error("%s: delivery stumbled over %s and goes on later", destination, describe(error))
    return {"again": desk.settings.jobs.retry_seconds, "priority": "routine"}
