"""Takes what waits in the outbox to its destinations; each destination has a thread, so a dead one delays no other."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3node.delivery.address import Peer
from m3node.delivery.back_off import back_off, is_due
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, box_of, file_sent, put_off, set_aside, waiting
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import (
    MAX_CONTEXTS,
    Sendable,
    StoreAssociation,
    Syntax,
    Timeouts,
    hang_up_all,
    sendable,
)
from m3node.errors import DeliveryError
from m3node.layout import DataLayout
from m3node.logs import describe
from m3node.settings import DeliverySettings, Destination, Settings

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often an idle destination's folder is looked at."""

STOP_SECONDS = 5.0
"""How long a stop waits for the objects at hand; one that is cut off waits in the outbox and is sent again."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Round:
    """What one round over a destination's outbox did.

    Attributes
    ----------
    stored, put_off, aside : int
        Objects that the destination has now, that are tried again, and that will not be sent.
    unreachable : str
        Why there was no association; empty when there was one, or nothing to send.
    """

    stored: int = 0
    put_off: int = 0
    aside: int = 0
    unreachable: str = ""


def run_deliverer(settings: Settings, stop: threading.Event) -> None:
    """Deliver until ``stop`` is set; what waits at a restart goes first.

    Parameters
    ----------
    settings : Settings
        Names the destinations and the waiting times.
    stop : threading.Event
        Ends it after the object that each destination is being sent.
    """
    layout = DataLayout(settings.data_dir)
    _name_orphans(layout, settings)
    title = settings.delivery.calling_ae_title or settings.listener.ae_title
    threads: dict[str, threading.Thread] = {}
    while not stop.is_set():
        for destination in settings.destinations:
            thread = threads.get(destination.name)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(
                    target=_serve_guarded,
                    args=(layout, destination, title, settings.delivery, stop),
                    name=f"deliver-{destination.name}",
                    daemon=True,  # a hung peer must not hold up the end of the process
                )
                thread.start()
                threads[destination.name] = thread
        stop.wait(POLL_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    hang_up_all()


def deliver_once(
    layout: DataLayout,
    destination: Destination,
    calling_ae_title: str,
    delivery: DeliverySettings,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Round:
    """Send everything that is due to one destination, over as few associations as the peer allows.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    destination : Destination
        Whom to send to.
    calling_ae_title : str
        Our own AE title.
    delivery : DeliverySettings
        Waiting times.
    stop : callable
        Asked before each object; true ends the round.
    """
    box = box_of(layout, destination.name)
    box.create()
    due = [entry for entry in waiting(box) if is_due(entry.not_before, time.time(), delivery)]
    items: list[tuple[Entry, Sendable]] = []
    tally = _Tally(box=box, delivery=delivery)
    for entry in due:
        try:
            items.append((entry, _checked(layout, entry)))
        except DeliveryError as error:
            tally.file(entry, Verdict.AGAIN if error.retryable else Verdict.REFUSED, str(error))
    peer = Peer(destination.ae_title or "", destination.host, destination.port)
    timeouts = Timeouts(connect=delivery.connect_seconds, response=delivery.response_seconds)
    try:
        while items and not stop():
            batch = items[: _batch_size(items)]
            with StoreAssociation(peer, calling_ae_title, (item.syntax for _, item in batch), timeouts) as association:
                taken = _send_batch(association, batch, tally, stop)
            items = items[taken:]
    except DeliveryError as error:
        return tally.round(unreachable=str(error))
    return tally.round()


@dataclass(slots=True)
class _Tally:
    """Counts outcomes of one round and files each entry by its own."""

    box: Box
    delivery: DeliverySettings
    stored: int = 0
    put_off: int = 0
    aside: int = 0

    def file(self, entry: Entry, verdict: Verdict, message: str) -> None:
        if verdict is Verdict.STORED:
            file_sent(self.box, entry)
            self.stored += 1
            _log.info("%s: stored %s of run %s (%s)", entry.destination, entry.sop_instance_uid, entry.run, message)
        elif verdict is Verdict.REFUSED:
            _give_up(self.box, entry, message)
            self.aside += 1
        else:
            delay = back_off(entry.attempts, self.delivery)
            put_off(self.box, entry, message, time.time() + delay)
            self.put_off += 1
            _log.warning(
                "%s: %s of run %s not stored (%s); tried again in %.0f s",
                entry.destination,
                entry.sop_instance_uid,
                entry.run,
                message,
                delay,
            )

    def round(self, unreachable: str = "") -> Round:
        return Round(stored=self.stored, put_off=self.put_off, aside=self.aside, unreachable=unreachable)


def _send_batch(
    association: StoreAssociation,
    batch: Sequence[tuple[Entry, Sendable]],
    tally: _Tally,
    stop: Callable[[], bool],
) -> int:
    """Send until the batch is done or the association is lost; return how many entries are dealt with."""
    for index, (entry, item) in enumerate(batch):
        if stop():
            return len(batch)
        sent = association.send(item)
        tally.file(entry, sent.verdict, sent.message)
        if not association.is_open and sent.verdict is Verdict.AGAIN:
            # Whatever the object did to the peer, those behind it go on over a new association.
            return index + 1
    return len(batch)


def _batch_size(items: Sequence[tuple[Entry, Sendable]]) -> int:
    """Return how many of the first items fit into one association's presentation contexts."""
    syntaxes: set[Syntax] = set()
    for index, (_, item) in enumerate(items):
        syntaxes.add(item.syntax)
        if len(syntaxes) > MAX_CONTEXTS:
            return index
    return len(items)


def _checked(layout: DataLayout, entry: Entry) -> Sendable:
    """Return the entry's file, whose bytes are those that were built."""
    path = layout.root / entry.path
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
        raise DeliveryError(f"its file cannot be read: {error.strerror}", retryable=not gone) from error
    if digest.hexdigest() != entry.sha256:
        raise DeliveryError("its file is not what was built: the SHA-256 differs", retryable=False)
    return sendable(path)


def _give_up(box: Box, entry: Entry, reason: str) -> None:
    set_aside(box, entry, reason)
    _log.error("%s: %s of run %s is set aside: %s", entry.destination, entry.sop_instance_uid, entry.run, reason)


def _serve(
    layout: DataLayout, destination: Destination, title: str, delivery: DeliverySettings, stop: threading.Event
) -> None:
    wake = _Wake(box_of(layout, destination.name), delivery)
    failures = 0
    while not stop.is_set():
        if not wake.due():
            stop.wait(POLL_SECONDS)
            continue
        result = deliver_once(layout, destination, title, delivery, stop=stop.is_set)
        if not result.unreachable:
            failures = 0
            continue
        delay = back_off(failures, delivery)
        failures += 1
        _log.warning("%s: %s; tried again in %.0f s", destination.name, result.unreachable, delay)
        stop.wait(delay)


class _Wake:
    """Knows whether anything is due, and reads the entries again only when the folder changed or a time has come."""

    def __init__(self, box: Box, delivery: DeliverySettings) -> None:
        self._box = box
        self._delivery = delivery
        self._stamp = 0
        self._times: tuple[float, ...] = ()

    def due(self) -> bool:
        try:
            changed = self._box.folder.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.time()
        # A stamp younger than the file system's clock may yet cover another change.
        settled = now - changed / 1e9 > 1.0
        if not settled or changed != self._stamp:
            self._times = tuple(entry.not_before for entry in waiting(self._box))
            self._stamp = changed
        return any(is_due(at, now, self._delivery) for at in self._times)


def _serve_guarded(
    layout: DataLayout, destination: Destination, title: str, delivery: DeliverySettings, stop: threading.Event
) -> None:
    try:
        _serve(layout, destination, title, delivery, stop)
    except Exception as error:  # noqa: BLE001 - the thread's boundary: a full disk here, say, stops no other destination
        _log.error("%s: delivery stumbled over %s and starts anew", destination.name, describe(error))
        stop.wait(delivery.retry_first_seconds)


def _name_orphans(layout: DataLayout, settings: Settings) -> None:
    """Say so when results wait for a destination that the settings no longer name."""
    if not layout.outbox.is_dir():
        return
    names = {destination.name for destination in settings.destinations}
    for folder in sorted(path for path in layout.outbox.iterdir() if path.is_dir()):
        left = len(waiting(Box(Path(folder))))
        if folder.name not in names and left:
            _log.warning("%d objects wait for %s, which is no destination any more", left, folder.name)
