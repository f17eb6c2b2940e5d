"""What the tests of delivery share: a run that waits for a destination, and what became of each of its objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
from pynetdicom.events import Event

from fake_pacs import make_run
from m3node.delivery import rounds
from m3node.delivery.courier import Courier
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.delivery.rounds import Round, deliver_due
from m3node.jobs.engine import names
from m3node.jobs.engine.dispatch import Dispatcher, Work
from m3node.jobs.engine.setup import prepare
from m3node.jobs.node.deliver import deliver_until
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import DeliverySettings, Destination, JobSettings, ListenerSettings, Settings

RUN = "1.2.3.g1"
QUICK = DeliverySettings(connect_seconds=60.0, response_seconds=60.0, retry_first_seconds=0.05, retry_max_seconds=0.2)
IMPATIENT = QUICK.model_copy(update={"response_seconds": 0.5})
"""For peers that never answer; elsewhere a busy machine must not be taken for one."""
PATIENT = QUICK.model_copy(update={"retry_first_seconds": 600.0, "retry_max_seconds": 600.0})
"""For what must not be tried again before the test is over."""
ENTRIES = "[!.]*.json"
"""Whole entries: what is half written has another name."""
SEG, REPORT = ObjectKind.SEGMENTATION.value, ObjectKind.REPORT.value


def queue(layout: DataLayout, *destinations: Destination, run: str = RUN, size: int = 0) -> None:
    """Let a run's SEG, two SRs and presentation state wait, the SEG first."""
    enqueue(layout, run, make_run(layout, run, size=size), destinations)


def queue_one(
    layout: DataLayout, destination: Destination, kind: ObjectKind = ObjectKind.REPORT, *, size: int = 0
) -> None:
    """Let a single object wait."""
    enqueue(layout, RUN, make_run(layout, RUN, [kind], size=size), [destination])


def settings_for(
    layout: DataLayout, *destinations: Destination, delivery: DeliverySettings = QUICK, drain: float = 20.0
) -> Settings:
    """The tree of a node that delivers to these."""
    return Settings(
        data_dir=layout.root,
        listener=ListenerSettings(),
        destinations=destinations,
        delivery=delivery,
        jobs=JobSettings(drain_seconds=drain, retry_seconds=0.2),
    )


@contextmanager
def courier_for(
    layout: DataLayout, *destinations: Destination, delivery: DeliverySettings = QUICK
) -> Iterator[Courier]:
    """The connections of a process that delivers."""
    courier = Courier(settings_for(layout, *destinations, delivery=delivery))
    try:
        yield courier
    finally:
        courier.close()


def go(
    layout: DataLayout,
    destination: Destination,
    delivery: DeliverySettings = QUICK,
    courier: Courier | None = None,
) -> Round:
    """One round however long it takes, with connections of its own unless some are given."""
    settings = settings_for(layout, destination, delivery=delivery)
    with (
        nullcontext(courier) if courier is not None else courier_for(layout, destination, delivery=delivery) as used,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(rounds, "ROUND_SECONDS", 600.0)
        return deliver_due(layout, destination, settings, used)


def aside(layout: DataLayout, name: str = "pacs") -> dict[str, str]:
    """Why each object will not be sent."""
    entries = [from_json(path.read_bytes()) for path in box_of(layout, name).aside.glob(ENTRIES)]
    return {entry.kind: entry.last_error for entry in entries}


def left(layout: DataLayout, name: str = "pacs") -> dict[str, Entry]:
    """What waits still."""
    return {entry.kind: entry for entry in waiting(box_of(layout, name))}


def sent(layout: DataLayout, name: str = "pacs") -> set[str]:
    """What the destination has."""
    return {from_json(path.read_bytes()).kind for path in box_of(layout, name).sent.glob(ENTRIES)}


class Deliverer:
    """The role that delivers, in a thread of the test; what waits is handed to the engine once, as jobs do it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = DataLayout(settings.data_dir)
        self.ended: bool | None = None
        self._dispatcher = Dispatcher(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        prepare(self.settings)
        self._thread.start()

    def hand_over(self, count: int | None = None) -> None:
        """Hand what waits to the engine: all of it, or the first entries of each destination."""
        for destination in self.settings.destinations:
            for entry in waiting(box_of(self.layout, destination.name))[:count]:
                self._dispatcher.enqueue_delivery(entry)

    @property
    def live(self) -> dict[str, Work]:
        """What the engine has still to do."""
        return self._dispatcher.live("deliveries")

    @property
    def attempts(self) -> list[int]:
        """Numbers of the attempts that the engine remembers, of all entries."""
        return [names.attempt_of(work.id) for work in self._dispatcher.attempts_of("send:")]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._dispatcher.close()

    def _run(self) -> None:
        self.ended = deliver_until(self.settings, self._stop)


@contextmanager
def deliverer(
    layout: DataLayout, *destinations: Destination, delivery: DeliverySettings = QUICK, drain: float = 20.0
) -> Iterator[Deliverer]:
    """Deliver as the node's role does; it must end soon after it is told to."""
    role = Deliverer(settings_for(layout, *destinations, delivery=delivery, drain=drain))
    role.start()
    try:
        role.hand_over()
        yield role
    finally:
        role.stop()


def for_class(sop_class_uid: str, status: int) -> Callable[[Event], int]:
    """Answer one SOP class with a status, the others with success."""
    return lambda event: status if event.request.AffectedSOPClassUID == sop_class_uid else 0x0000
