"""A round over one destination's outbox: what is due goes, one object after the other, over one connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from m3node.delivery.attempt import attempt
from m3node.delivery.back_off import due, gives_up, waits_for_its_turn
from m3node.delivery.courier import Courier
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import box_of, put_off, set_aside, waiting
from m3node.delivery.state import DeliveryState
from m3node.delivery.transfers import transferred
from m3node.layout import DataLayout
from m3node.logs import correlated
from m3node.settings import DeliverySettings, Destination, Settings

ROUND_OBJECTS, ROUND_SECONDS = 50, 5.0
"""Where a round ends although more is due, so that what it did is known to the engine and urgent objects come first."""

Note = Callable[[Entry], object]
"""Told of every entry that has changed."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did.

    Attributes
    ----------
    stored, put_off, aside : int
        Objects that the destination has now, that are tried again, and that will not be sent.
    unreachable : str
        Why the destination is down; empty when it is not.
    more : bool
        Whether more is due now.
    wake : tuple of Entry
        Entries whose next attempt has a time (``not_before``): nobody else cares for them.
    """

    stored: int = 0
    put_off: int = 0
    aside: int = 0
    unreachable: str = ""
    more: bool = field(default=False, compare=False)
    wake: tuple[Entry, ...] = field(default=(), compare=False)


def deliver_due(
    layout: DataLayout,
    destination: Destination,
    settings: Settings,
    courier: Courier,
    *,
    first: str = "",
    stop: Callable[[], bool] = lambda: False,
    note: Note = lambda entry: None,
) -> Round:
    """Send what is due to one destination: urgent objects first, what got no answer last.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    destination : Destination
        Whom to send to.
    settings : Settings
        Titles and waiting times.
    courier : Courier
        The connections of this process.
    first : str
        Name of an entry that goes first where it probes a destination that is down.
    stop : callable
        Asked before each object; true ends the round.
    note : callable
        Told of every entry that has changed.

    Raises
    ------
    OSError
        The disk refuses to write down what became of an object.
    """
    box = box_of(layout, destination.name)
    box.create()
    reach = courier.reach
    ended: list[Entry] = []
    until = time.monotonic() + ROUND_SECONDS
    queue = [entry for entry in waiting(box) if due(entry, time.time(), settings.delivery)]
    # What the peer may have choked on goes last, so that it keeps nothing else from it.
    queue.sort(key=lambda entry: (entry.priority != "stat", entry.state is DeliveryState.UNKNOWN))
    if reach.is_probe(destination.name, first):
        queue.sort(key=lambda entry: entry.name != first)
    left = len(queue)
    for entry in queue:
        full = len(ended) >= ROUND_OBJECTS or time.monotonic() >= until
        if full or stop() or reach.closed_to(destination.name, entry.name):
            break
        left -= 1
        with correlated(run=entry.run, study=entry.study_instance_uid, destination=destination.name):
            after = attempt(layout, destination, entry.name, settings, courier)
        if after is None:
            continue
        ended.append(after)
        note(after)
        if why := reach.why(destination.name):
            if after.state is DeliveryState.DEAD:
                ended += _give_up_as_well(after, layout, destination, settings.delivery, courier=courier, note=note)
            return _round(ended, unreachable=why)
    return _round(ended, unreachable=reach.why(destination.name), more=left > 0)


def _round(entries: list[Entry], *, unreachable: str, more: bool = False) -> Round:
    states = [entry.state for entry in entries]
    stored = sum(state in (DeliveryState.SENT, DeliveryState.STORED, DeliveryState.CONFIRMED) for state in states)
    aside = sum(state in (DeliveryState.DEAD, DeliveryState.CANCELLED) for state in states)
    wake = tuple(entry for entry in entries if not entry.finished_at and waits_for_its_turn(entry))
    return Round(
        stored=stored,
        put_off=len(entries) - stored - aside,
        aside=aside,
        unreachable=unreachable,
        more=more and not unreachable,
        wake=wake,
    )


def _give_up_as_well(
    probe: Entry,
    layout: DataLayout,
    destination: Destination,
    delivery: DeliverySettings,
    *,
    courier: Courier,
    note: Note,
) -> list[Entry]:
    """Set aside what has waited as long as a probe that was given up; the oldest of the others probes from now on."""
    changed: list[Entry] = []
    now = time.time()
    box, why = box_of(layout, destination.name), courier.reach.why(destination.name)
    for entry in waiting(box):
        if not waits_for_its_turn(entry):
            continue
        since = entry.failing_since or max(entry.queued_at, probe.failing_since)
        # One that was given up for a reason of its own says nothing of the others.
        if probe.failing_since and gives_up(since, now, delivery):
            # Before the outbox says so, as for the probe itself.
            courier.trail.record(transferred(layout, destination, entry, failed=probe.last_error))
            changed.append(set_aside(box, entry, probe.last_error))
            note(changed[-1])
            continue
        delay = courier.reach.unreachable(entry.destination, entry.name, why)
        changed.append(put_off(box, entry, why, now + delay, since=since))
        note(changed[-1])
        break
    return changed
