"""Deliveries that wait, as files: they survive a restart, and a person can read and move them.

::

    outbox/<destination>/<run>.<kind>.json         waits, to be sent or for its commitment
    outbox/<destination>/<run>.<kind>.starts       how often sending it took the process down (`m3node.delivery.starts`)
    outbox/<destination>/sent/<run>.<kind>.json    the destination has it
    outbox/<destination>/aside/<run>.<kind>.json   will not be sent; last_error says why

To send an object again that was set aside, ``m3node requeue`` it, or move its file back up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from m3node.delivery.entry import Entry, from_json, to_json
from m3node.delivery.state import DeliveryState
from m3node.durable import sync_folder, write_over
from m3node.errors import DeliveryError
from m3node.layout import DataLayout

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Box:
    """The folders of one destination."""

    folder: Path

    @property
    def sent(self) -> Path:
        """What the destination has."""
        return self.folder / "sent"

    @property
    def aside(self) -> Path:
        """What will not be sent."""
        return self.folder / "aside"

    def create(self) -> None:
        """Make the folders durably; existing ones stay."""
        for folder in (self.folder, self.sent, self.aside):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                sync_folder(folder.parent)

    def file(self, name: str) -> Path:
        """Where an entry waits."""
        return self.folder / f"{name}.json"

    def starts(self, name: str) -> Path:
        """Where the starts of sending an entry are counted."""
        return self.folder / f"{name}.starts"

    def holds(self, name: str) -> bool:
        """Whether an entry waits, was sent or was set aside."""
        return any((folder / f"{name}.json").exists() for folder in (self.folder, self.sent, self.aside))


def box_of(layout: DataLayout, destination: str) -> Box:
    """Return the folders of a destination."""
    return Box(layout.outbox / destination)


def waiting(box: Box, run: str = "") -> tuple[Entry, ...]:
    """Return what waits for a destination, or what waits of one run, in the order in which it is sent.

    A file that is no entry is set aside under its own name, so that it stops nothing.
    """
    found = (read_entry(box, path.stem) for path in box.folder.glob(f"{run}.*.json" if run else "[!.]*.json"))
    return tuple(sorted((entry for entry in found if entry and run in ("", entry.run)), key=lambda entry: entry.turn))


def read_entry(box: Box, name: str) -> Entry | None:
    """Return an entry that waits; None when it was filed or cancelled, or is none and was set aside for that."""
    if _is_filed(box, name):
        if not box.file(name).exists():
            return None
        with held(box):
            # Asked once more: somebody may have let it wait again since (`recall.requeue`), and it must not be lost.
            if _is_filed(box, name):
                box.file(name).unlink(missing_ok=True)  # filed already; a kill came before this name was removed
    return _read(box, name)


def _is_filed(box: Box, name: str) -> bool:
    return any((folder / f"{name}.json").exists() for folder in (box.sent, box.aside))


def _read(box: Box, name: str) -> Entry | None:
    path = box.file(name)
    try:
        entry = from_json(path.read_bytes())
        if entry.name != name:
            raise DeliveryError("it holds the entry of another name", retryable=False)
    except FileNotFoundError:
        return None
    except DeliveryError as error:
        _log.error("outbox file %s is set aside: %s", path.name, error)
        os.replace(path, box.aside / path.name)
        return None
    return entry


def as_filed(box: Box, entry: Entry) -> Entry:
    """Return an entry as its file says it now, wherever that lies."""
    for folder in (box.sent, box.aside, box.folder):
        try:
            return from_json((folder / f"{entry.name}.json").read_bytes())
        except (FileNotFoundError, DeliveryError):
            continue
    return replace(entry, state=DeliveryState.CANCELLED)


def rewrite(box: Box, was: Entry, entry: Entry) -> bool:
    """Write down what became of an entry that goes on waiting, unless somebody else has changed it meanwhile.

    Parameters
    ----------
    box : Box
        Its destination's folders.
    was : Entry
        As the caller read it.
    entry : Entry
        As it is from now on.

    Returns
    -------
    bool
        False when the file no longer says `was`: a report or a cancellation came first, and counts.
    """
    with held(box):
        if not _says(box, was):
            return False
        write_over(box.file(entry.name), to_json(entry))
        return True


def finish(box: Box, was: Entry, entry: Entry) -> bool:
    """File an entry under ``sent/`` or, when it is not there by its state, ``aside/``; otherwise as `rewrite`."""
    folder = box.sent if entry.state in (DeliveryState.SENT, DeliveryState.CONFIRMED) else box.aside
    with held(box):
        if not _says(box, was):
            return False
        _file(box, entry, folder)
        return True


def _says(box: Box, was: Entry) -> bool:
    """Whether an entry waits and is as it was read; for who holds the box."""
    return not _is_filed(box, was.name) and _read(box, was.name) == was


@contextmanager
def held(box: Box) -> Iterator[None]:
    """Keep everybody else from changing a box's entries; for a read and a write, never while a peer is asked."""
    # A file that is opened for writing, because NFS gives no exclusive lock on another.
    handle = os.open(box.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def file_sent(box: Box, entry: Entry, state: DeliveryState = DeliveryState.SENT) -> Entry:
    """File an entry that the destination has, also when it was cancelled while it was on the wire."""
    now = time.time()
    done = replace(entry, state=state, stored_at=entry.stored_at or now, failing_since=0.0).finished("", now)
    with held(box):
        _file(box, done, box.sent)
    return done


def set_aside(box: Box, entry: Entry, reason: str, state: DeliveryState = DeliveryState.DEAD) -> Entry:
    """File an entry that will not be sent, with the reason; return it as its file says it, if that came first."""
    done = replace(entry, state=state).finished(reason, time.time())
    return done if finish(box, entry, done) else as_filed(box, entry)


def put_off(
    box: Box,
    entry: Entry,
    error: str,
    not_before: float,
    *,
    state: DeliveryState = DeliveryState.RETRYING,
    since: float = 0.0,
) -> Entry:
    """Write down an attempt that failed and may be repeated; an entry cancelled meanwhile stays cancelled.

    Parameters
    ----------
    box : Box
        Its destination's folders.
    entry : Entry
        As the caller read it.
    error : str
        What the attempt ended with.
    not_before : float
        When it may be repeated, seconds since the epoch.
    state : DeliveryState
        ``RETRYING`` or ``UNKNOWN``.
    since : float
        When failures in a row began, where the entry does not say so yet; now without it.

    Returns
    -------
    Entry
        As its file says it now.
    """
    failing_since = entry.failing_since or since or time.time()
    later = replace(entry.tried(error, not_before), state=state, failing_since=failing_since)
    return later if rewrite(box, entry, later) else as_filed(box, entry)


def _file(box: Box, entry: Entry, folder: Path) -> None:
    # Written under its new name first: a kill between the two steps leaves the entry waiting as well, and who reads
    # it next clears that up, instead of losing what became of it.
    write_over(folder / f"{entry.name}.json", to_json(entry))
    if folder == box.sent:
        (box.aside / f"{entry.name}.json").unlink(missing_ok=True)  # cancelled while it was on the wire
    box.file(entry.name).unlink(missing_ok=True)
    box.starts(entry.name).unlink(missing_ok=True)
    sync_folder(box.folder)
