"""A receiver process: serves the associations whose sockets the acceptor passes to it.

Each association has a thread that waits for its socket; what the threads do between two waits is short or is done by
the kernel (writing, synchronising), so that several associations share a process well. The process ends when its
channel to the acceptor ends, however that came about.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity

from m3node import logs
from m3node.audit.trail import AuditTrail
from m3node.disk import Watermark
from m3node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from m3node.intake.receive.admission import admission_of
from m3node.intake.receive.association import HEARTBEAT_SECONDS, OpenLease
from m3node.intake.receive.contexts import presentation_contexts
from m3node.intake.receive.session import Session
from m3node.intake.receive.spool import Spool
from m3node.intake.receive.tls_door import TlsDoor
from m3node.layout import DataLayout
from m3node.metrics import counting
from m3node.settings import ListenerSettings, Settings

LOGGER = logging.getLogger(__name__)

REQUEST_SECONDS = 30.0
"""How long a connection may stand without an association request (ARTIM, PS3.8 9.1.5)."""

# The channel between acceptor and receiver keeps message boundaries (SOCK_SEQPACKET).
SERVE, REFUSE, SERVE_TLS, REFUSE_TLS, STOP = b"serve", b"refuse", b"serve tls", b"refuse tls", b"stop"
"""Acceptor to receiver: serve the passed socket, reject what it asks for want of room, both after a handshake; end."""
READY, FINISHED, REFUSED = b"ready", b"finished", b"refused"
"""Receiver to acceptor: sockets may come; one association has ended; one was rejected for want of room."""


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
        self._admission = admission_of(settings)
        self._layout = DataLayout(settings.data_dir.absolute())
        room = Watermark(self._layout.root, settings.disk.refuse_free_mb)
        self._spool = Spool(self._layout, durable=settings.listener.durable, room=room)
        self._ae = application_entity(settings.listener)
        self._leases: dict[str, OpenLease] = {}
        self._sessions: set[Session] = set()
        self._lock = threading.Lock()
        self._door = TlsDoor(settings.listener.tls, trail.record)

    def serve(self, connection: socket.socket, *, over_limit: bool, over_tls: bool = False) -> None:
        """Serve one association from its request, or its handshake, to its end, in the calling thread."""
        with connection:
            tls = None
            if over_tls and (tls := self._door.admit(connection)) is None:
                return
            try:
                session = Session(
                    self._ae, self._admission, self._spool, self, connection, over_limit=over_limit, tls=tls
                )
            except OSError:
                return  # the peer has gone already: a port scan, a load balancer's probe
            with self._lock:
                self._sessions.add(session)
            try:
                session.run()
            finally:
                with self._lock:
                    self._sessions.discard(session)

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
        """Touch the leases of all open associations, for ever."""
        while True:
            with self._lock:
                leases = list(self._leases.values())
            for lease in leases:
                lease.touch()
            time.sleep(HEARTBEAT_SECONDS)

    def drain(self, grace_seconds: float) -> None:
        """Let open associations end by themselves, then abort those that are left."""
        self._wait(grace_seconds)
        with self._lock:
            left = list(self._sessions)
        for session in left:
            session.interrupt()
        self._wait(2.0)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._sessions and time.monotonic() < deadline:
            time.sleep(0.05)


def application_entity(listener: ListenerSettings) -> ApplicationEntity:
    """Describe this node to pynetdicom."""
    ae = ApplicationEntity(ae_title=listener.ae_title)
    ae.maximum_pdu_size = listener.maximum_pdu_size
    ae.maximum_associations = 2**31  # the acceptor counts, over all receivers
    ae.acse_timeout = REQUEST_SECONDS
    ae.network_timeout = listener.idle_seconds
    ae.dimse_timeout = listener.idle_seconds
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    # Each association gets those of its caller instead, when it is known who calls.
    ae.supported_contexts = presentation_contexts(store=False, report=False)
    return ae


def receive(settings: Settings, channel: socket.socket, number: int) -> None:
    """Be a receiver process until the channel says stop or ends.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    channel : socket.socket
        This process's end of the pair that it shares with the acceptor.
    number : int
        Which receiver it is, for the log.
    """
    # A terminal and an init system signal the whole group; a receiver ends when the acceptor says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logs.set_up(settings.log, f"receiver {number}")
    counting.start(settings, f"receiver-{number}")
    _config.LOG_HANDLER_LEVEL = "none"  # its handlers format every PDU for the log, whether it is shown or not
    receiver = Receiver(settings, AuditTrail(settings, process=f"receiver {number}"))
    threading.Thread(target=receiver.keep_touching, name="heartbeat", daemon=True).start()

    def serve(connection: socket.socket, message: bytes) -> None:
        over_limit = message in (REFUSE, REFUSE_TLS)
        try:
            receiver.serve(connection, over_limit=over_limit, over_tls=message in (SERVE_TLS, REFUSE_TLS))
        except Exception as error:  # noqa: BLE001 - one association's failure must not end the others'
            LOGGER.error("an association ended unexpectedly: %s", logs.describe(error))
        finally:
            _tell(channel, REFUSED if over_limit else FINISHED)

    _tell(channel, READY)
    while True:
        try:
            message, handles, _, _ = socket.recv_fds(channel, 64, 1)
        except ConnectionResetError:
            message = b""  # an acceptor that died before it had read all that it was told
        if not message:
            LOGGER.error("the acceptor is gone: ending, with what associations are open")
            os._exit(1)
        if message == STOP:
            break
        for handle in handles:
            connection = socket.socket(fileno=handle)
            threading.Thread(target=serve, args=(connection, message), daemon=True).start()
    receiver.drain(settings.jobs.drain_seconds)


def _tell(channel: socket.socket, message: bytes) -> None:
    try:
        channel.send(message)
    except OSError:
        return  # the acceptor is gone; `receive` sees it too
