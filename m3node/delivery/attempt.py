"""One attempt to send one entry of the outbox; its file says what is to be done, and in the end what became of it."""

from __future__ import annotations

import hashlib
import logging
import time

from m3node.delivery.back_off import back_off, gives_up
from m3node.delivery.commitment import after_store
from m3node.delivery.courier import Courier
from m3node.delivery.entry import Entry
from m3node.delivery.outbox import Box, box_of, file_sent, put_off, read_entry, set_aside
from m3node.delivery.starts import starts_left
from m3node.delivery.state import DeliveryState
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import Sendable, Sent, sendable
from m3node.errors import DeliveryError
from m3node.faults import fault_point
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings, Destination, Settings

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
    box = box_of(layout, destination.name)
    entry = read_entry(box, name)
    if entry is None:
        return None
    limit = settings.jobs.poison_limit
    if starts_left(box, name) >= limit:
        times = f"{limit} times" if limit > 1 else "once"
        why = f"the process that delivers died {times} while sending it: look at memory and the log of that time"
        return _give_up(box, entry, why)
    with courier.starts.attempt(box, name):
        return _attempt(layout, destination, entry, settings, courier)


def _attempt(layout: DataLayout, destination: Destination, entry: Entry, settings: Settings, courier: Courier) -> Entry:
    box, name = box_of(layout, destination.name), entry.name
    if entry.state is DeliveryState.STORED:
        return after_store(layout, destination, entry, settings, time.time())
    fault_point("store.before")
    try:
        item = _checked(layout, entry)
    except DeliveryError as error:
        sent = Sent(Verdict.AGAIN if error.retryable else Verdict.REFUSED, None, str(error))
    else:
        try:
            sent = courier.send(destination, item)
        except DeliveryError as error:
            return _not_reached(box, entry, str(error), settings.delivery, courier)
        if sent.unknown:
            courier.reach.unanswered(destination.name, name, sent.message)
        elif sent.status is not None or sent.verdict is not Verdict.AGAIN:
            courier.reach.answered(destination.name)
    fault_point("store.inside")
    done = _write_down(layout, destination, entry, sent, settings)
    fault_point("store.after")
    return done


def _write_down(layout: DataLayout, destination: Destination, entry: Entry, sent: Sent, settings: Settings) -> Entry:
    box, now = box_of(layout, destination.name), time.time()
    uid, run = entry.sop_instance_uid, entry.run
    if sent.verdict is Verdict.STORED:
        _log.info("%s: stored %s of run %s (%s)", entry.destination, uid, run, sent.message)
        if destination.commitment:
            return after_store(layout, destination, entry, settings, now)
        return file_sent(box, entry)
    if sent.verdict is Verdict.REFUSED:
        return _give_up(box, entry, sent.message)
    if gives_up(entry.failing_since, now, settings.delivery):
        return _give_up(box, entry, f"not stored for {settings.delivery.give_up_hours:g} h; at last: {sent.message}")
    asked = min(sent.retry_after, settings.delivery.retry_max_seconds)
    delay = max(back_off(entry.attempts, settings.delivery), asked)
    state = DeliveryState.UNKNOWN if sent.unknown else DeliveryState.RETRYING
    words = "%s: %s of run %s not stored (%s); tried again in %.0f s"
    _log.warning(words, entry.destination, uid, run, sent.message, delay)
    return put_off(box, entry, sent.message, now + delay, state=state)


def _not_reached(box: Box, entry: Entry, why: str, delivery: DeliverySettings, courier: Courier) -> Entry:
    """Let the entry be the one that tries the destination again."""
    delay = courier.reach.unreachable(entry.destination, entry.name, why)
    now = time.time()
    if gives_up(entry.failing_since, now, delivery):
        return _give_up(box, entry, f"not reached for {delivery.give_up_hours:g} h; at last: {why}")
    _log.warning("%s: %s; tried again in %.0f s", entry.destination, why, delay)
    return put_off(box, entry, why, now + delay)


def _give_up(box: Box, entry: Entry, reason: str) -> Entry:
    _log.error("%s: %s of run %s is set aside: %s", entry.destination, entry.sop_instance_uid, entry.run, reason)
    return set_aside(box, entry, reason)


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
