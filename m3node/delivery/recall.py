"""Deliveries that somebody thinks better of: taken back before they are sent, or let wait again after all."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from m3node.delivery.entry import Entry, from_json, to_json
from m3node.delivery.outbox import Box, box_of, finish, held, read_entry, waiting
from m3node.delivery.state import DeliveryState
from m3node.durable import sync_folder, write_over
from m3node.layout import DataLayout


def cancel(layout: DataLayout, run: str, reason: str) -> tuple[Entry, ...]:
    """Take back what still waits to be sent of a run, for every destination: a newer generation has taken its place.

    What a destination has already, and only its commitment is awaited, stays.

    Returns
    -------
    tuple of Entry
        The deliveries that were cancelled.
    """
    cancelled: list[Entry] = []
    if not layout.outbox.is_dir():
        return ()
    for folder in sorted(path for path in layout.outbox.iterdir() if path.is_dir()):
        box = Box(folder)
        taken_back = [_cancel(box, entry, reason) for entry in waiting(box, run)]
        cancelled += [entry for entry in taken_back if entry is not None]
    return tuple(cancelled)


def cancel_one(layout: DataLayout, destination: str, name: str, reason: str) -> Entry | None:
    """Take back one delivery that waits to be sent, or dismiss a dead letter; None when it is neither.

    Raises
    ------
    DeliveryError
        Its file is damaged.
    """
    box = box_of(layout, destination)
    cancelled = _cancel(box, read_entry(box, name), reason)
    if cancelled is not None:
        return cancelled
    aside = box.aside / f"{name}.json"
    with held(box):
        try:
            dead = from_json(aside.read_bytes())
        except FileNotFoundError:
            return None
        if dead.state is not DeliveryState.DEAD:
            return None
        dismissed = replace(dead, state=DeliveryState.CANCELLED, last_error=f"{reason}; it was dead: {dead.last_error}")
        write_over(aside, to_json(dismissed))
    return dismissed


def requeue(layout: DataLayout, destination: str, name: str) -> Entry | None:
    """Let an entry that was set aside wait again, to be sent at once; None when there is none.

    Its attempts are kept, and the time of its failures begins anew.

    Raises
    ------
    DeliveryError
        Its file is damaged.
    """
    box = box_of(layout, destination)
    aside = box.aside / f"{name}.json"
    with held(box):
        try:
            entry = from_json(aside.read_bytes())
        except FileNotFoundError:
            return None
        again = replace(
            entry,
            state=DeliveryState.WAITING,
            not_before=0.0,
            failing_since=0.0,
            finished_at=0.0,
            stored_at=0.0,
            transaction_uid="",
            requested_at=0.0,
        )
        write_over(aside, to_json(again))
        box.starts(name).unlink(missing_ok=True)  # a kill may have left them
        os.replace(aside, box.file(name))
        for folder in (box.folder, box.aside):
            sync_folder(folder)
    return again


def _cancel(box: Box, entry: Entry | None, reason: str) -> Entry | None:
    """Take an entry back, whatever an attempt writes down meanwhile; None when it is not to be sent any more."""
    while entry is not None and entry.state is not DeliveryState.STORED:
        done = replace(entry, state=DeliveryState.CANCELLED).finished(reason, time.time())
        if finish(box, entry, done):
            return done
        entry = read_entry(box, entry.name)
    return None
