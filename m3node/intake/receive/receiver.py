"""What a receiver process does with the connections that the acceptor passes to it.

Each association has a thread that waits for its socket; what the threads do between two waits is short or is done by
the kernel (writing, synchronising), so that several associations share a process well. The process ends when its
channel to the acceptor ends, however that came about.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pynetdicom.ae import ApplicationEntity

from m3node.audit.events import Node, SecurityAlert
from m3node.audit.trail import AuditTrail
from m3node.disk import Watermark
from m3node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from m3node.intake.receive.admission import admission_of
from m3node.intake.receive.association import HEARTBEAT_SECONDS, OpenLease
from m3node.intake.receive.contexts import presentation_contexts
from m3node.intake.receive.desk import Desk
from m3node.intake.receive.peer import address_of
from m3node.intake.receive.repeats import RepeatedLines
from m3node.intake.receive.session import Session
from m3node.intake.receive.shared import Shared
from m3node.intake.receive.spool import Spool
from m3node.intake.receive.tls_door import TlsDoor
from m3node.layout import DataLayout
from m3node.logs import correlated
from m3node.metrics import counting
from m3node.settings import ListenerSettings, Settings

LOGGER = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Served:
    """A connection that is being served; its session is there when hands have been shaken."""

    connection: socket.socket
    session: Session | None = None
    ended: bool = False

    @property
    def admitted(self) -> bool:
        return self.session is not None and self.session.admitted

    def end(self) -> None:
        """End it from another thread."""
        self.ended = True
        if self.session is not None:
            self.session.interrupt()
            return
        with suppress(OSError):  # the peer was faster
            self.connection.shutdown(socket.SHUT_RD)


class Receiver:
    """What the associations of one process share.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    trail : AuditTrail
        Hears who was refused.
    """

    def __init__(self, settings: Settings, trail: AuditTrail) -> None:
        self._layout = DataLayout(settings.data_dir.absolute())
        self._trail = trail
        self.lines = RepeatedLines(LOGGER)
        room = Watermark(self._layout.root, settings.disk.refuse_free_mb)
        self._shared = Shared(
            ae=application_entity(settings.listener),
            admission=admission_of(settings),
            spool=Spool(self._layout, durable=settings.listener.durable, room=room),
            leases=self,
            lines=self.lines,
            trail=trail,
        )
        self._door = TlsDoor(settings.listener.tls, trail.record, self.lines.say)
        self._max_waiting = settings.listener.max_waiting
        self._leases: dict[str, OpenLease] = {}
        self._served: dict[int, _Served] = {}
        self._lock = threading.Lock()

    def expect(self, connection: socket.socket, number: int) -> None:
        """Know a connection before its thread runs, so that `close_waiting` finds it."""
        with self._lock:
            self._served[number] = _Served(connection)

    def drop(self, number: int) -> None:
        """Close a connection that no thread serves."""
        with self._lock:
            self._served.pop(number).connection.close()

    def serve(self, connection: socket.socket, desk: Desk, *, number: int = 0, over_tls: bool = False) -> None:
        """Serve one association from its request, or its handshake, to its end, in the calling thread.

        Parameters
        ----------
        connection : socket.socket
            The accepted connection; it is closed in the end.
        desk : Desk
            Whom to ask about limits that hold over all processes.
        number : int
            By which `close_waiting` knows it.
        over_tls : bool
            Whether hands have to be shaken first.
        """
        with self._lock:
            served = self._served.setdefault(number, _Served(connection))
        try:
            with connection, correlated(association=str(number)):
                tls = None
                if over_tls and (tls := self._door.admit(connection, lambda: served.ended)) is None:
                    return
                try:
                    served.session = Session(self._shared, connection, desk, tls=tls)
                except OSError:
                    counting.association_ended("silent")
                    return  # the peer has gone already: a port scan, a load balancer's probe
                served.session.run()
        finally:
            with self._lock:
                del self._served[number]

    def close_waiting(self, number: int) -> None:
        """Close a connection that has asked for nothing yet, for want of room for those that came after it."""
        with self._lock:
            served = self._served.get(number)
        if served is None:
            return
        with suppress(OSError):
            address = address_of(served.connection)
            words = f"gave way to others: over {self._max_waiting} connections wait (listener.max_waiting)"
            self.lines.say(logging.WARNING, f"a connection from {address} asked for nothing and {words}")
            self._trail.record(SecurityAlert("limit", Node("", address), f"its connection {words}"))
        served.end()

    def open_lease(self, *, calling: str, called: str, peer: str) -> OpenLease:
        """Begin a lease, and touch it from now on."""
        lease = OpenLease(self._layout.associations, calling=calling, called=called, peer=peer)
        with self._lock:
            self._leases[lease.id] = lease
        return lease

    def close_lease(self, lease: OpenLease) -> None:
        """End a lease."""
        with self._lock:
            self._leases.pop(lease.id, None)
        lease.close()

    def keep_touching(self) -> None:
        """Touch the leases of all open associations, and say what has come again in the log, for ever."""
        while True:
            with self._lock:
                leases = list(self._leases.values())
            for lease in leases:
                lease.touch()
            self.lines.count()
            time.sleep(HEARTBEAT_SECONDS)

    def drain(self, grace_seconds: float) -> None:
        """Let open associations end by themselves, then abort those that are left; what only waits ends at once."""
        self._end(lambda served: not served.admitted)
        self._wait(grace_seconds)
        self._end(lambda served: True)
        self._wait(2.0)
        self.lines.count(all_of_them=True)

    def _end(self, which: Callable[[_Served], bool]) -> None:
        with self._lock:
            chosen = [served for served in self._served.values() if which(served)]
        for served in chosen:
            served.end()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._served and time.monotonic() < deadline:
            time.sleep(0.05)


def application_entity(listener: ListenerSettings) -> ApplicationEntity:
    """Describe this node to pynetdicom."""
    ae = ApplicationEntity(ae_title=listener.ae_title)
    ae.maximum_pdu_size = listener.maximum_pdu_size
    ae.maximum_associations = 2**31  # the acceptor counts, over all receivers
    ae.acse_timeout = listener.request_seconds
    ae.network_timeout = listener.idle_seconds
    ae.dimse_timeout = listener.idle_seconds
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    # Each association gets those of its caller instead, when it is known who calls.
    ae.supported_contexts = presentation_contexts(store=False, report=False)
    return ae
