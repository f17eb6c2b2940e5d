"""From a run's objects to deliveries that wait: which kinds a destination gets, and in what order."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace

from m3node.delivery.entry import Entry, to_json
from m3node.delivery.outbox import box_of
from m3node.durable import write_once
from m3node.errors import DeliveryError
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind, ResultObject
from m3node.settings import Destination

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

# The SRs refer to the SEG: a viewer that opens a report as soon as it arrives must find its segments. What explains an
# answer comes behind it, since it is large.
_KINDS: dict[str, tuple[ObjectKind, ...]] = {
    "comprehensive3d": (
        ObjectKind.SEGMENTATION,
        ObjectKind.REPORT,
        ObjectKind.VOLUMES,
        ObjectKind.PRESENTATION,
        ObjectKind.ATTENTION_CAPTURE,
        ObjectKind.ATTENTION_MAP,
    ),
    "enhanced": (
        ObjectKind.SEGMENTATION,
        ObjectKind.REPORT_ENHANCED,
        ObjectKind.VOLUMES_ENHANCED,
        ObjectKind.PRESENTATION,
        ObjectKind.ATTENTION_CAPTURE,
        ObjectKind.ATTENTION_MAP,
    ),
}
_ENHANCED_OF = {
    ObjectKind.REPORT: ObjectKind.REPORT_ENHANCED,
    ObjectKind.VOLUMES: ObjectKind.VOLUMES_ENHANCED,
}


def kinds_for(destination: Destination) -> tuple[ObjectKind, ...]:
    """Return the kinds of object that a destination gets, in the order in which they are sent."""
    return _KINDS[destination.sr]


def enqueue(
    layout: DataLayout,
    run: str,
    objects: Sequence[ResultObject],
    destinations: Sequence[Destination],
    *,
    priority: str = "routine",
) -> tuple[Entry, ...]:
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
        Who gets them (`m3node.delivery.routing.routed` says who gets what).
    priority : str
        ``routine`` or ``stat``, as the manifest has it.

    Returns
    -------
    tuple of Entry
        Those that wait now for the first time, in the order in which they are sent.

    Raises
    ------
    DeliveryError
        An object lies outside the data folder, or a destination wants Enhanced SR and none was built.
    """
    if not _RUN.fullmatch(run):
        raise DeliveryError(f"{run!r} cannot name a run", retryable=False)
    queued_at = time.time()
    new: list[Entry] = []
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
            entry = replace(entry, priority=priority)
            if not box.holds(entry.name) and write_once(box.file(entry.name), to_json(entry)):
                new.append(entry)
    return tuple(new)


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
