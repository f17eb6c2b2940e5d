"""Takes objects to their destinations over connections that stay open for a moment, in case another object follows."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    SegmentationStorage,
)

from m3node.audit.events import Node, SecurityAlert
from m3node.audit.trail import AuditTrail
from m3node.delivery.address import peer_of, timeouts_of
from m3node.delivery.reach import Reach
from m3node.delivery.starts import Starts
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import Sendable, Sent, StoreAssociation, Syntax
from m3node.delivery.stow import StowService
from m3node.errors import UntrustedPeerError
from m3node.settings import DeliverySettings, Destination, Settings

LINGER_SECONDS = 2.0
"""How long a connection waits for the next object: an association for each would take four times as long."""

_REPORTS = {"comprehensive3d": Comprehensive3DSRStorage, "enhanced": EnhancedSRStorage}


def _usual_syntaxes(destination: Destination) -> frozenset[Syntax]:
    """What a destination is sent of every run, so that one association fits all of it."""
    classes = (SegmentationStorage, _REPORTS[destination.sr], GrayscaleSoftcopyPresentationStateStorage)
    return frozenset(Syntax(str(uid), str(ExplicitVRLittleEndian)) for uid in classes)


class _Line(Protocol):
    """A connection to one destination."""

    def send(self, item: Sendable) -> Sent:
        """Send an object; `DeliveryError` when there is no connection."""
        ...

    def close(self) -> None:
        """End the connection; the next object opens another one."""
        ...


class _DicomLine:
    """C-STORE over one association at a time."""

    def __init__(self, destination: Destination, calling_ae_title: str, delivery: DeliverySettings) -> None:
        self._peer = peer_of(destination, delivery.tls_minimum)
        self._title = calling_ae_title
        self._timeouts = timeouts_of(delivery)
        self._syntaxes = _usual_syntaxes(destination)
        self._stack = ExitStack()
        self._association: StoreAssociation | None = None

    def send(self, item: Sendable) -> Sent:
        association = self._association
        reused = association is not None and association.is_open and item.syntax in self._syntaxes
        if association is None or not reused:
            association = self._open(item.syntax)
        sent = association.send(item)
        if reused and sent.verdict is Verdict.AGAIN and not sent.unknown and not association.is_open:
            # The peer has hung up since the last object, and this one has not left.
            sent = self._open(item.syntax).send(item)
        return sent

    def close(self) -> None:
        self._association = None
        self._stack.close()

    def _open(self, syntax: Syntax) -> StoreAssociation:
        self.close()
        self._syntaxes |= {syntax}
        fresh = StoreAssociation(self._peer, self._title, self._syntaxes, self._timeouts)
        self._association = self._stack.enter_context(fresh)
        return fresh


@dataclass(slots=True)
class _Held:
    line: _Line
    used_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Courier:
    """The connections of one process, at most one to each destination; safe for several threads.

    Parameters
    ----------
    settings : Settings
        Titles and waiting times.
    linger : float
        Seconds for which a connection stays open behind its last object (`close_idle`).

    Attributes
    ----------
    reach : Reach
        Which destinations cannot be reached.
    starts : Starts
        What is being sent, counted in files.
    trail : AuditTrail
        Where it is recorded what went out, and to whom it did not because it is not who it should be.
    """

    def __init__(self, settings: Settings, *, linger: float = LINGER_SECONDS) -> None:
        delivery = settings.delivery
        self.reach = Reach(delivery)
        self.starts = Starts()
        self.trail = AuditTrail(settings, process="deliver")
        self._title = delivery.calling_ae_title or settings.listener.ae_title
        self._delivery = delivery
        self._linger = linger
        self._held: dict[Destination, _Held] = {}
        self._lock = threading.Lock()

    def send(self, destination: Destination, item: Sendable) -> Sent:
        """Send an object, over the connection that is open or a new one, and wait for the answer.

        Raises
        ------
        DeliveryError
            The destination cannot be reached, or lets nobody in: that is no fault of the object.
        """
        held = self._line(destination)
        with held.lock:
            try:
                return held.line.send(item)
            except UntrustedPeerError as error:
                peer = Node(destination.ae_title or "", destination.host or destination.url)
                self.trail.record(SecurityAlert("node authentication", peer, str(error)))
                raise
            finally:
                held.used_at = time.monotonic()

    def close_idle(self) -> None:
        """End the connections that nobody has used for a while."""
        with self._lock:
            every = list(self._held.values())
        for held in every:
            if time.monotonic() - held.used_at < self._linger or not held.lock.acquire(blocking=False):
                continue
            try:
                held.line.close()
            finally:
                held.lock.release()

    def close(self) -> None:
        """End every connection, behind the object that it is sending."""
        with self._lock:
            every = list(self._held.values())
        for held in every:
            with held.lock:
                held.line.close()

    def _line(self, destination: Destination) -> _Held:
        with self._lock:
            if destination not in self._held:
                line: _Line
                if destination.url:
                    line = StowService(destination, self._delivery)
                else:
                    line = _DicomLine(destination, self._title, self._delivery)
                self._held[destination] = _Held(line)
            return self._held[destination]
