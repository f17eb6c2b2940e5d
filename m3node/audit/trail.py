"""What every process of the node calls: an event goes to the trail, and nothing comes of it for the caller.

A disk that refuses the trail does not refuse patients: the process goes on, says so once a minute, keeps a number of
messages in memory and writes them when it can. (Refusing images because the audit disk is full would be worse; the
node's health shows it.)
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from m3node.audit.coalescing import Coalescing
from m3node.audit.events import (
    ApplicationActivity,
    AuditLogUsed,
    Event,
    InstancesAccessed,
    InstancesTransferred,
    SecurityAlert,
    UserAuthentication,
)
from m3node.audit.files import append, folder_of
from m3node.audit.messages import Reporter, encoded
from m3node.logs import describe
from m3node.metrics import counting
from m3node.settings import Settings

_log = logging.getLogger(__name__)

_KINDS: dict[type, str] = {
    ApplicationActivity: "application_activity",
    InstancesTransferred: "instances_transferred",
    SecurityAlert: "security_alert",
    AuditLogUsed: "audit_log_used",
    UserAuthentication: "user_authentication",
    InstancesAccessed: "instances_accessed",
}
"""How the metrics call them (`m3node.metrics.families.AUDIT_KINDS`)."""

KEPT = 1000
"""Messages that wait in memory for a disk that takes them."""
AGAIN_SECONDS = 5.0
"""How long what waits in memory waits at least, when nothing else is recorded meanwhile."""
REMINDER_SECONDS = 60.0
LAST_SECONDS = 1.0
"""How long the end of a process waits for a thread that is writing: its disk may hang."""


_open: WeakSet[AuditTrail] = WeakSet()


def write_now() -> None:
    """Write what is counted or waits; for a process that ends without its end being noticed (`os._exit`)."""
    for trail in list(_open):
        trail.write_in(LAST_SECONDS)


class AuditTrail:
    """The trail, as one process writes it; safe for threads, and beside other processes.

    Parameters
    ----------
    settings : Settings
        The tree.
    process : str
        What this process is, for example ``keeper``; its process id is added.
    clock : callable
        Seconds that do not jump, for what is counted.

    Attributes
    ----------
    lost : int
        Messages that were given up, because the disk refused more than are kept in memory.
    """

    def __init__(self, settings: Settings, *, process: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder_of(settings)
        self._reporter = Reporter(
            ae_title=settings.listener.ae_title,
            host=socket.gethostname(),
            site=settings.audit.site,
            process=process,
            pid=os.getpid(),
            log=self._folder.as_uri(),
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._coalescing = Coalescing()
        self._waiting: deque[bytes] = deque()
        self._timer: threading.Timer | None = None
        self._said_at: float | None = None
        self.lost = 0
        _open.add(self)

    def record(self, event: Event, *, at: float | None = None) -> None:
        """Add an event.

        Never raises and waits for no network. Equal security alerts within a minute are two messages: the first one,
        and one that says how often they came again.

        Parameters
        ----------
        event : Event
            What happened.
        at : float, optional
            When, in seconds since the epoch; now without it.
        """
        with self._lock, _nothing_for_the_caller():
            self._write_counts()
            admitted: Event | None = event
            if isinstance(event, SecurityAlert):
                admitted = self._coalescing.admit(event, self._clock())
            if admitted is not None:
                self._write(admitted, at)
            self._wake_later()

    def close(self) -> None:
        """Write what is still counted; when the process ends in order that is done by itself."""
        with self._lock, _nothing_for_the_caller():
            self._write_counts(all_of_them=True)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._flush()
        atexit.unregister(self.close)

    def write_in(self, seconds: float) -> None:
        """Write what is counted or waits, unless a thread that is writing does not come to its end in time."""
        if not self._lock.acquire(timeout=seconds):
            return
        try:
            with _nothing_for_the_caller():
                self._write_counts(all_of_them=True)
                self._flush()
        finally:
            self._lock.release()

    def _write_counts(self, *, all_of_them: bool = False) -> None:
        for alert, more in self._coalescing.due(self._clock(), all_of_them=all_of_them):
            self._write(alert, None, again=more)

    def _wake_later(self) -> None:
        """Have what waits written in a while, though nothing else should happen."""
        due = self._coalescing.next_due
        if self._waiting:
            due = min(due or math.inf, self._clock() + AGAIN_SECONDS)
        if self._timer is not None or due is None:
            return
        self._timer = threading.Timer(max(due - self._clock(), 0.0), self._woken)
        self._timer.daemon = True
        self._timer.start()
        atexit.register(self.close)

    def _woken(self) -> None:
        with self._lock, _nothing_for_the_caller():
            self._timer = None
            self._write_counts()
            self._flush()
            self._wake_later()

    def _write(self, event: Event, at: float | None, *, again: int = 0) -> None:
        counting.audit_event(_KINDS[type(event)])
        self._waiting.append(encoded(event, self._reporter, time.time() if at is None else at, again=again))
        self._flush()

    def _flush(self) -> None:
        """Write what waits, in its order."""
        while self._waiting:
            try:
                append(self._folder, self._waiting[0], time.time())
            except OSError as error:
                counting.audit_failed()
                self._refused(error)
                return
            self._waiting.popleft()
        if self._said_at is not None:
            _log.warning("the audit trail is written again; %d messages were lost", self.lost)
            self._said_at = None

    def _refused(self, error: OSError) -> None:
        while len(self._waiting) > KEPT:
            self._waiting.popleft()
            self.lost += 1
        now = self._clock()
        if self._said_at is None or now - self._said_at >= REMINDER_SECONDS:
            self._said_at = now
            _log.error(
                "the audit trail cannot be written (%s: %s): %d messages wait in memory, %d are lost; the node goes on",
                error.strerror,
                error.filename or self._folder,
                len(self._waiting),
                self.lost,
            )


@contextmanager
def _nothing_for_the_caller() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - nothing about the trail may cost an association or a delivery
        _log.critical("an event was not written to the audit trail: %s", describe(error))
