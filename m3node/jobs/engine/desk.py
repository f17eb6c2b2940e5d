"""What a process that delivers has at hand, and what it does for one entry of the outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from m3node.delivery.back_off import due, waits_for_its_turn
from m3node.delivery.courier import Courier
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, box_of, read_entry
from m3node.delivery.rounds import deliver_due
from m3node.errors import DatabaseError
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.trouble import Trouble
from m3node.layout import DataLayout
from m3node.metrics import counting
from m3node.settings import Destination, Settings

_log = logging.getLogger(__name__)

Words = dict[str, Any]
"""What is to come. ``more``: another round at once; ``again``: the next attempt after so many seconds, with its
``priority``; ``over``: nothing is left to do here."""

DOWN = "the destination is down, and another entry probes it"


@dataclass(slots=True)
class Desk:
    """What the deliveries of one process share.

    Attributes
    ----------
    layout, settings
        The data folder and the tree.
    courier : Courier
        The connections.
    ledger : Ledger
        Told what was done.
    dispatcher : Dispatcher
        Enqueues the attempts of other entries.
    """

    layout: DataLayout
    settings: Settings
    courier: Courier
    ledger: Ledger
    dispatcher: Dispatcher
    _running: set[str] = field(default_factory=set)
    _trouble: dict[str, Trouble] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Let no further object be sent; those on the wire may be answered."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether the process is to end."""
        return self._stopping.is_set()

    @property
    def running(self) -> frozenset[str]:
        """IDs of the workflows that this process is at."""
        return frozenset(self._running)

    @contextmanager
    def delivery(self, workflow_id: str) -> Iterator[None]:
        """Be at a delivery."""
        self._running.add(workflow_id)
        try:
            yield
        finally:
            self._running.discard(workflow_id)

    def trouble(self, destination: str) -> Trouble:
        """What the disk keeps from a destination, said of all of its objects together."""
        return self._trouble.setdefault(destination, Trouble(f"{destination}: delivery waits"))

    def destination(self, name: str) -> Destination | None:
        """Return a destination of the settings."""
        return next((item for item in self.settings.destinations if item.name == name), None)

    def note(self, entry: Entry) -> None:
        """Note in ledger and metrics what became of an entry."""
        self.ledger.note_entry(entry)
        counting.delivery_ended(entry.destination, entry.state.value)

    def wake(self, entry: Entry) -> None:
        """Have an entry looked at when its time has come; what the database refuses now, the reconciler does."""
        try:
            self.dispatcher.enqueue_delivery(entry, delay=_until(entry))
        except DatabaseError as error:
            _log.debug("%s", error)  # the engine's own threads say so already


def attend_to(desk: Desk, destination: str, name: str, *, goes_on: bool = False) -> Words:
    """Make a round over a destination's outbox, on behalf of one of its entries.

    Parameters
    ----------
    desk : Desk
        What the process has at hand.
    destination, name : str
        The entry.
    goes_on : bool
        Whether this goes on with the others, where the round before came to its end with more to do.

    Raises
    ------
    OSError
        The disk refuses; what waits is sent later, the same bytes again where an answer could not be written down.
    """
    to = desk.destination(destination)
    if to is None:
        return {"over": "no destination of the settings"}
    if not goes_on and (before := _before(desk, box_of(desk.layout, destination), name)):
        return before
    done = deliver_due(
        desk.layout,
        to,
        desk.settings,
        desk.courier,
        first=name,
        stop=lambda: desk.stopping,
        note=desk.note,
    )
    if done.stored or done.put_off or done.aside:
        desk.trouble(destination).over()
    for other in done.wake:
        if other.name != name:
            desk.wake(other)
    return {"more": True} if done.more else _after(desk, box_of(desk.layout, destination), name)


def _before(desk: Desk, box: Box, name: str) -> Words:
    """Say why nothing is to be done now; nothing to say where a round is to be made."""
    destination, reach = box.folder.name, desk.courier.reach
    entry = read_entry(box, name)
    if entry is None and reach.is_probe(destination, name):
        reach.dismiss(destination)
    if reach.closed_to(destination, name):
        return {"over": DOWN}
    if entry is None or not waits_for_its_turn(entry) or due(entry, time.time(), desk.settings.delivery):
        # Also when another one has sent it: behind this one may be a thousand more of which that is so, and behind
        # them one that has only just come.
        return {}
    return _later(entry)


def _after(desk: Desk, box: Box, name: str) -> Words:
    """Say whether the entry on whose behalf a round was made needs another attempt."""
    entry = read_entry(box, name)
    if entry is None or not waits_for_its_turn(entry):
        return {"over": "done"}
    if desk.courier.reach.closed_to(entry.destination, name):
        return {"over": DOWN}
    return _later(entry)


def _later(entry: Entry) -> Words:
    return {"again": _until(entry), "priority": entry.priority}


def _until(entry: Entry) -> float:
    return max(0.0, entry.not_before - time.time())
