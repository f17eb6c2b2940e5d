"""Deliveries that wait, as files: they survive a restart, and a person can read and move them.

::

    outbox/<destination>/<run>.<kind>.json         waits
    outbox/<destination>/sent/<run>.<kind>.json    the destination has it
    outbox/<destination>/aside/<run>.<kind>.json   will not be sent; last_error says why

To send an object again that was set aside, move its file back up.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3node.delivery.entry import Entry, from_json, to_json
from m3node.durable import sync_folder, write_once, write_over
from m3node.errors import DeliveryError
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import Destination

_log = logging.getLogger(__name__)

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

# The SRs refer to the SEG: a viewer that opens a report as soon as it arrives must find its segments.
_KINDS: dict[str, tuple[ObjectKind, ...]] = {
    "comprehensive3d": (
        ObjectKind.SEGMENTATION,
        ObjectKind.REPORT,
        ObjectKind.VOLUMES,
        ObjectKind.PRESENTATION,
    ),
    "enhanced": (
        ObjectKind.SEGMENTATION,
        ObjectKind.REPORT_ENHANCED,
        ObjectKind.VOLUMES_ENHANCED,
        ObjectKind.PRESENTATION,
    ),
}
_ENHANCED_OF = {
    ObjectKind.REPORT: ObjectKind.REPORT_ENHANCED,
    ObjectKind.VOLUMES: ObjectKind.VOLUMES_ENHANCED,
}


def kinds_for(destination: Destination) -> tuple[ObjectKind, ...]:
    """Return the kinds of object that a destination gets, in the order in which they are sent."""
    return _KINDS[destination.sr]


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

    def holds(self, name: str) -> bool:
        """Whether an entry waits, was sent or was set aside."""
        return any((folder / f"{name}.json").exists() for folder in (self.folder, self.sent, self.aside))


def box_of(layout: DataLayout, destination: str) -> Box:
    """Return the folders of a destination."""
    return Box(layout.outbox / destination)


def enqueue(layout: DataLayout, run: str, objects: Sequence[ResultObject], destinations: Sequence[Destination]) -> None:
    """Let a run's objects wait for each destination; once it returns, they go even after a power cut.

    Calling it again for the same run adds only what is missing: an object that waits, was sent or was set aside is
    not queued twice.

    Parameters
    ----------
    layout : DataLayout
        The data folder; the objects lie in it.
    run : str
        Name of the run's folder in ``results/``.
    objects : sequence of ResultObject
        What the run built; a destination gets the kinds that it wants (`kinds_for`).
    destinations : sequence of Destination
        Who gets them.

    Raises
    ------
    DeliveryError
        An object lies outside the data folder, or a destination wants Enhanced SR and none was built.
    """
    if not _RUN.fullmatch(run):
        raise DeliveryError(f"{run!r} cannot name a run", retryable=False)
    queued_at = time.time()
    built = {item.kind: item for item in objects}
    for destination in destinations:
        box = box_of(layout, destination.name)
        box.create()
        wanted = kinds_for(destination)
        for plain, enhanced in _ENHANCED_OF.items():
            if enhanced in wanted and plain in built and enhanced not in built:
                raise DeliveryError(
                    f"destination {destination.name} wants Enhanced SR, but run {run} built no {enhanced.value}",
                    retryable=False,
                )
        for order, kind in enumerate(wanted):
            if kind not in built:
                continue
            entry = _entry(layout, run, built[kind], destination.name, order=order, queued_at=queued_at)
            if not box.holds(entry.name):
                write_once(box.file(entry.name), to_json(entry))


def _entry(
    layout: DataLayout, run: str, item: ResultObject, destination: str, *, order: int, queued_at: float
) -> Entry:
    try:
        path = item.path.resolve().relative_to(layout.root.resolve())
    except ValueError as error:
        raise DeliveryError(f"object {item.sop_instance_uid} lies outside the data folder", retryable=False) from error
    return Entry(
        name=f"{run}.{item.kind.value}",
        destination=destination,
        run=run,
        kind=item.kind.value,
        order=order,
        path=path.as_posix(),
        sha256=item.sha256,
        sop_class_uid=item.sop_class_uid,
        sop_instance_uid=item.sop_instance_uid,
        study_instance_uid=item.study_instance_uid,
        queued_at=queued_at,
    )


def waiting(box: Box) -> tuple[Entry, ...]:
    """Return what waits for a destination, in the order in which it is sent.

    A file that is no entry is set aside under its own name, so that it stops nothing.
    """
    entries = []
    for path in box.folder.glob("[!.]*.json"):
        if (box.sent / path.name).exists() or (box.aside / path.name).exists():
            path.unlink(missing_ok=True)  # filed already; a kill came before this name was removed
            continue
        try:
            entry = from_json(path.read_bytes())
            if entry.name != path.stem:
                raise DeliveryError("it holds the entry of another name", retryable=False)
        except FileNotFoundError:
            continue  # cancelled since the folder was listed
        except DeliveryError as error:
            _log.error("outbox file %s is set aside: %s", path.name, error)
            os.replace(path, box.aside / path.name)
            continue
        entries.append(entry)
    return tuple(sorted(entries, key=lambda entry: entry.turn))


def file_sent(box: Box, entry: Entry) -> None:
    """File an entry that the destination has stored."""
    _file(box, entry.finished("", time.time()), box.sent)


def set_aside(box: Box, entry: Entry, reason: str) -> None:
    """File an entry that will not be sent, with the reason."""
    _file(box, entry.finished(reason, time.time()), box.aside)


def put_off(box: Box, entry: Entry, error: str, not_before: float) -> Entry:
    """Write down an attempt that failed and may be repeated; an entry cancelled meanwhile stays cancelled."""
    later = entry.tried(error, not_before)
    if box.file(entry.name).exists():
        write_over(box.file(entry.name), to_json(later))
    return later


def cancel(layout: DataLayout, run: str, reason: str) -> int:
    """Set aside what still waits of a run, for every destination: a newer generation has taken its place.

    Returns
    -------
    int
        How many deliveries were cancelled.
    """
    count = 0
    if not layout.outbox.is_dir():
        return count
    for folder in sorted(path for path in layout.outbox.iterdir() if path.is_dir()):
        box = Box(folder)
        for entry in waiting(box):
            if entry.run == run:
                set_aside(box, entry, reason)
                count += 1
    return count


def _file(box: Box, entry: Entry, folder: Path) -> None:
    # Written under its new name first: a kill between the two steps leaves the entry waiting as well, and the
    # deliverer clears that up, instead of losing what became of it.
    write_over(folder / f"{entry.name}.json", to_json(entry))
    if folder == box.sent:
        (box.aside / f"{entry.name}.json").unlink(missing_ok=True)  # cancelled while it was on the wire
    box.file(entry.name).unlink(missing_ok=True)
    sync_folder(box.folder)
