"""Follows the trail and sends it to a repository by syslog over TLS (RFC 5425): at least once, in order.

Syslog has no answers, so a message counts as there when the peer's system has acknowledged it and the connection has
been well for some seconds more, or when the peer has answered our goodbye. Whatever else was sent over a connection
that ends is sent again over the next one: the repository may have a message twice, but not miss one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import ssl
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from m3node.audit.files import folder_of, months
from m3node.audit.forwarded import read_batch, read_memory, write_memory
from m3node.audit.syslog import frame, packet
from m3node.errors import M3NodeError
from m3node.settings import Settings
from m3node.settings.audit import SyslogSettings
from m3node.tls.calling import Terms, secure, why_not

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
SURE_SECONDS = 5.0
"""How long a connection has to be well behind a message before that counts as there."""
IDLE_SECONDS = 60.0
"""A connection that nobody needs is closed; firewalls forget such ones without a word."""
CONNECT_SECONDS, SEND_SECONDS, GOODBYE_SECONDS = 10.0, 30.0, 2.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
REMINDER_SECONDS = 600.0


class LostError(M3NodeError):
    """The connection to the repository has ended."""


def forward(settings: Settings, stop: threading.Event) -> None:
    """Forward the trail until ``stop`` is set."""
    forwarder = Forwarder(settings)
    while not stop.wait(forwarder.step()):
        pass
    forwarder.close()


class Forwarder:
    """One connection to the repository, and what it has of the trail.

    Parameters
    ----------
    settings : Settings
        The tree, with ``audit.syslog.host``.
    clock : callable
        Seconds that do not jump.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder_of(settings)
        self._peer = settings.audit.syslog
        self._clock = clock
        self._memory = read_memory(self._folder)
        self._sent = dict(self._memory.places)
        self._marks: deque[tuple[float, dict[str, int]]] = deque()
        self._connection: ssl.SSLSocket | None = None
        self._used_at = 0.0
        self._pause = 0.0
        self._said_at: float | None = None

    def step(self) -> float:
        """Send what there is to be sent; return how many seconds to wait before the next look."""
        try:
            self._look_at_connection()
            self._send_all()
            self._let_go_when_idle()
        except (OSError, M3NodeError) as error:
            self._failed(error)
            return self._pause
        return LOOK_SECONDS

    def close(self) -> None:
        """Say goodbye; what the peer answers to is there."""
        self._hang_up()

    def _send_all(self) -> None:
        for path in months(self._folder):
            place = self._sent.get(path.name, 0)
            if place > path.stat().st_size:
                _log.warning("%s is shorter than it was: it is forwarded from its beginning", path)
                place = 0
            while batch := read_batch(path, place):
                self._send(batch.lines)
                place = self._sent[path.name] = batch.end
                self._marks.append((self._clock(), dict(self._sent)))
                self._look_at_connection()

    def _send(self, lines: tuple[bytes, ...]) -> None:
        if not lines:
            return
        if self._connection is None:
            self._connection = _connect(self._peer)
        host, pid = socket.gethostname(), os.getpid()
        self._used_at = self._clock()
        self._connection.settimeout(SEND_SECONDS)
        self._connection.sendall(b"".join(frame(packet(line, host=host, pid=pid)) for line in lines))

    def _look_at_connection(self) -> None:
        """See whether the connection is well, and what is there by now."""
        connection = self._connection
        if connection is None:
            return
        if not _has_ended(connection):
            if _unacknowledged(connection) == 0:
                self._confirm(self._clock() - SURE_SECONDS)
            return
        if self._marks:
            raise LostError("it has closed the connection")
        self._hang_up()  # all of it is there: it did not want to wait for more

    def _confirm(self, before: float) -> None:
        """Take what was sent until then for there, and write that down."""
        sure = None
        while self._marks and self._marks[0][0] <= before:
            _, sure = self._marks.popleft()
        if sure is None:
            return
        there = {path.name for path in months(self._folder)}
        self._memory.places = {name: place for name, place in sure.items() if name in there}
        if self._memory.error:
            _log.info("the audit trail is forwarded to %s again", _name(self._peer))
        self._memory.error, self._pause, self._said_at = "", 0.0, None
        self._remember()

    def _remember(self) -> None:
        try:
            write_memory(self._folder, self._memory)
        except OSError as error:
            _log.warning("what is forwarded cannot be written down (%s): it may be sent twice", error.strerror)

    def _let_go_when_idle(self) -> None:
        if self._connection is not None and self._clock() - self._used_at >= IDLE_SECONDS:
            self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.settimeout(GOODBYE_SECONDS)
            # The peer's own close_notify comes behind all that we sent before ours: it has read it.
            connection.unwrap().close()
        except OSError:
            connection.close()
            self._go_back()
        else:
            self._confirm(self._clock())

    def _failed(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._go_back()
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
        words, now = _words(error, self._peer), self._clock()
        if words != self._memory.error or self._said_at is None or now - self._said_at >= REMINDER_SECONDS:
            _log.error("the audit trail cannot be forwarded to %s: %s; it waits", _name(self._peer), words)
            self._said_at = now
        if words != self._memory.error:
            self._memory.error = words
            self._remember()

    def _go_back(self) -> None:
        """Send again what is not there for certain."""
        self._marks.clear()
        self._sent = dict(self._memory.places)


def _connect(peer: SyslogSettings) -> ssl.SSLSocket:
    address = (peer.host, peer.port)
    terms = _terms(peer)
    transport = socket.create_connection(address, timeout=CONNECT_SECONDS)
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A peer that is gone without a word shows by what it does not acknowledge.
    transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_SECONDS * 1000))
    return secure(transport, address, terms, CONNECT_SECONDS)


def _terms(peer: SyslogSettings) -> Terms:
    return Terms(
        ca_file=peer.ca_file,
        name=peer.name,
        pins=peer.certificate_sha256,
        client_certificate_file=peer.client_certificate_file,
        client_key_file=peer.client_key_file,
        client_key_password_file=peer.client_key_password_file,
        minimum=peer.minimum,
        section="audit.syslog",
    )


def _has_ended(connection: ssl.SSLSocket) -> bool:
    """Whether the peer has closed the connection.

    Raises
    ------
    OSError
        It was broken off, or refused only now.
    """
    connection.settimeout(0.0)
    try:
        while connection.recv(4096):
            pass  # nothing of a repository's is for us
    except ssl.SSLWantReadError:
        return False
    return True


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that the peer's system has not acknowledged (SIOCOUTQ, tcp(7))."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _words(error: Exception, peer: SyslogSettings) -> str:
    """Say what is wrong: with the peer, or with a file of the trail."""
    if isinstance(error, ssl.SSLError):
        # Also behind the handshake: by TLS 1.3 a peer refuses our certificate only then.
        return why_not(error, (peer.host, peer.port), _terms(peer))
    if isinstance(error, OSError):
        words = error.strerror or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        return f"{words}: {Path(error.filename).name}" if error.filename else words
    return str(error)


def _name(peer: SyslogSettings) -> str:
    return f"{peer.host}:{peer.port}"
