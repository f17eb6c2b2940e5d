"""One attempt to send one entry of the outbox; its file says what is to be done, and in the end what became of it."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass

from m3node.delivery.back_off import back_off, gives_up
from m3node.delivery.commitment import after_store
from m3node.delivery.courier import Courier
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, box_of, file_sent, put_off, read_entry, set_aside
from m3node.delivery.starts import starts_left
from m3node.delivery.state import DeliveryState
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import Sendable, Sent, sendable
from m3node.delivery.transfers import transferred
from m3node.errors import DeliveryError
from m3node.faults import fault_point
from m3node.layout import DataLayout
from m3node.settings import Destination, Settings

_log = logging.getLogger(__name__)

_BLOCK = 1 << 20


def attempt(
    layout: DataLayout, destination: Destination, name: str, settings: Settings, courier: Courier
) -> Entry | None:
    """Send an object, and write down what became of it.

    Killed before the last line was written, it is repeated: the same bytes go again, under the same UID. When that has
    happened ``jobs.poison_limit`` times in a row, the object is set aside.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    destination : Destination
        Whom to send to.
    name : str
        The entry in its outbox.
    settings : Settings
        Titles and waiting times.
    courier : Courier
        The connections of this process; it also learns whether the destination can be reached.

    Returns
    -------
    Entry or None
        As its file says it now; None when it does not wait any more, because it was sent before or cancelled.

    Raises
    ------
    OSError
        The disk refuses to write down what became of it; the entry waits as before, and may be sent again.
    """
    way = _Way(layout, destination, settings, courier)
    entry = read_entry(way.box, name)
    if entry is None:
        return None
    limit = settings.jobs.poison_limit
    if starts_left(way.box, name) >= limit:
        times = f"{limit} times" if limit > 1 else "once"
        why = f"the process that delivers died {times} while sending it: look at memory and the log of that time"
        return _give_up(way, entry, why)
    with courier.starts.attempt(way.box, name):
        return _attempt(way, entry)


@dataclass(frozen=True, slots=True)
class _Way:
    """From the data folder to a destination."""

    layout: DataLayout
    destination: Destination
    settings: Settings
    courier: Courier

    @property
    def box(self) -> Box:
        return box_of(self.layout, self.destination.name)

    def audit(self, entry: Entry, *, failed: str = "") -> None:
        """Record what became of an object.

        Before the outbox says so: killed in between, it is sent or given up again, and that is recorded as well.
        """
        self.courier.trail.record(transferred(self.layout, self.destination, entry, failed=failed))


def _attempt(way: _Way, entry: Entry) -> Entry:
    destination, courier, name = way.destination, way.courier, entry.name
    if entry.state is DeliveryState.STORED:
        return after_store(way.layout, destination, entry, way.settings, time.time())
    fault_point("store.before")
    try:
        item = _checked(way.layout, entry)
    except DeliveryError as error:
        sent = Sent(Verdict.AGAIN if error.retryable else Verdict.REFUSED, None, str(error))
    else:
        try:
            sent = courier.send(destination, item)
        except DeliveryError as error:
            return _not_reached(way, entry, str(error))
        if sent.unknown:
            courier.reach.unanswered(destination.name, name, sent.message)
        elif sent.status is not None or sent.verdict is not Verdict.AGAIN:
            courier.reach.answered(destination.name)
    fault_point("store.inside")
    done = _write_down(way, entry, sent)
    fault_point("store.after")
    return done


def _write_down(way: _Way, entry: Entry, sent: Sent) -> Entry:
    settings, now = way.settings, time.time()
    uid, run = entry.sop_instance_uid, entry.run
    if sent.verdict is Verdict.STORED:
        _log.info("%s: stored %s of run %s (%s)", entry.destination, uid, run, sent.message)
        way.audit(entry)
        if way.destination.commitment:
            return after_store(way.layout, way.destination, entry, settings, now)
        return file_sent(way.box, entry)
    if sent.verdict is Verdict.REFUSED:
        return _give_up(way, entry, sent.message)
    if gives_up(entry.failing_since, now, settings.delivery):
        why = f"not stored for {settings.delivery.give_up_hours:g} h; at last: {sent.message}"
        return _give_up(way, entry, why)
    asked = min(sent.retry_after, settings.delivery.retry_max_seconds)
    delay = max(back_off(entry.attempts, settings.delivery), asked)
    state = DeliveryState.UNKNOWN if sent.unknown else DeliveryState.RETRYING
    words = "%s: %s of run %s not stored (%s); tried again in %.0f s"
    _log.warning(words, entry.destination, uid, run, sent.message, delay)
    return put_off(way.box, entry, sent.message, now + delay, state=state)


def _not_reached(way: _Way, entry: Entry, why: str) -> Entry:
    """Let the entry be the one that tries the destination again."""
    delay = way.courier.reach.unreachable(entry.destination, entry.name, why)
    now, delivery = time.time(), way.settings.delivery
    if gives_up(entry.failing_since, now, delivery):
        return _give_up(way, entry, f"not reached for {delivery.give_up_hours:g} h; at last: {why}")
    _log.warning("%s: %s; tried again in %.0f s", entry.destination, why, delay)
    return put_off(way.box, entry, why, now + delay)


def _give_up(way: _Way, entry: Entry, reason: str) -> Entry:
    _log.error("%s: %s of run %s is set aside: %s", entry.destination, entry.sop_instance_uid, entry.run, reason)
    way.audit(entry, failed=reason)
    return set_aside(way.box, entry, reason)


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
