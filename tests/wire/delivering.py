"""What the tests of delivery share: a run that waits for a destination, and what became of each of its objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pynetdicom.events import Event

from fake_pacs import make_run
from m3node.delivery.deliverer import Round, deliver_once, run_deliverer
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import box_of, enqueue, waiting
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import DeliverySettings, Destination, ListenerSettings, Settings

RUN = "1.2.3.g1"
QUICK = DeliverySettings(connect_seconds=60.0, response_seconds=60.0, retry_first_seconds=0.05, retry_max_seconds=0.2)
IMPATIENT = QUICK.model_copy(update={"connect_seconds": 0.5, "response_seconds": 0.5})
"""For peers that never answer; elsewhere a busy machine must not be taken for one."""
SEG, REPORT = ObjectKind.SEGMENTATION.value, ObjectKind.REPORT.value


def queue(layout: DataLayout, *destinations: Destination, run: str = RUN, size: int = 0) -> None:
    """Let a run's SEG, two SRs and presentation state wait, the SEG first."""
    enqueue(layout, run, make_run(layout, run, size=size), destinations)


def queue_one(
    layout: DataLayout, destination: Destination, kind: ObjectKind = ObjectKind.REPORT, *, size: int = 0
) -> None:
    """Let a single object wait."""
    enqueue(layout, RUN, make_run(layout, RUN, [kind], size=size), [destination])


def go(layout: DataLayout, destination: Destination, delivery: DeliverySettings = QUICK) -> Round:
    return deliver_once(layout, destination, "M3NODE", delivery)


def aside(layout: DataLayout, name: str = "pacs") -> dict[str, str]:
    """Why each object will not be sent."""
    entries = [from_json(path.read_bytes()) for path in box_of(layout, name).aside.iterdir()]
    return {entry.kind: entry.last_error for entry in entries}


def left(layout: DataLayout, name: str = "pacs") -> dict[str, Entry]:
    """What waits still."""
    return {entry.kind: entry for entry in waiting(box_of(layout, name))}


def sent(layout: DataLayout, name: str = "pacs") -> set[str]:
    """What the destination has."""
    return {from_json(path.read_bytes()).kind for path in box_of(layout, name).sent.iterdir()}


@contextmanager
def deliverer(layout: DataLayout, *destinations: Destination, delivery: DeliverySettings = QUICK) -> Iterator[None]:
    """Deliver in a thread, as the node's deliverer process does; it must end soon after it is told to."""
    settings = Settings(data_dir=layout.root, listener=ListenerSettings(), destinations=destinations, delivery=delivery)
    stop = threading.Event()
    thread = threading.Thread(target=run_deliverer, args=(settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def for_class(sop_class_uid: str, status: int) -> Callable[[Event], int]:
    """Answer one SOP class with a status, the others with success."""
    return lambda event: status if event.request.AffectedSOPClassUID == sop_class_uid else 0x0000
