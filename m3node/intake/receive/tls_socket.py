"""An association's socket over TLS: read as the plain one is, by one thread, with the kernel counting the waits.

Python's ``SSLSocket`` takes neither ``MSG_WAITALL`` nor the kernel's time limits, and reads a record of 16 KiB with two
system calls. Here the engine works in memory (``SSLObject``), and the socket stays an ordinary one: it is read in large
pieces, and another thread can end it by ``shutdown``.
"""

from __future__ import annotations

import logging
import mmap
import socket
import ssl
import time
from contextlib import suppress
from typing import cast

from pynetdicom import evt
from pynetdicom.association import Association

from m3node.intake.receive.passed_socket import ConnectionEndedError, PassedSocket, let_wait
from m3node.intake.receive.peer import PeerTls
from m3node.tls.certificates import peer_fingerprint
from m3node.tls.reasons import why_no_tls

LOGGER = logging.getLogger(__name__)

_HANDSHAKE_BYTES = 16 * 1024
_READ_BYTES = 256 * 1024
"""Taken off the socket at once: what a large PDU and its records have."""

_FAREWELL_SECONDS = 1.0
"""How long the peer has to take our last words."""


class TlsConnection:
    """The TLS engine over an accepted socket.

    Parameters
    ----------
    connection : socket.socket
        It is read and written here alone from now on.
    context : ssl.SSLContext
        A server's.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        connection.setblocking(True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._taken = memoryview(bytearray(_HANDSHAKE_BYTES))
        self.heard = False
        """Whether the peer has sent a byte."""
        self.shown = PeerTls("", "", "")
        """What the handshake has shown."""

    def shake_hands(self, seconds: float) -> None:
        """Bring the handshake to its end.

        Raises
        ------
        TimeoutError
            It was not over in time; that the peer sends a byte now and then does not prolong it.
        OSError
            The connection ended, or the handshake failed (`ssl.SSLError`).
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._wait_until(deadline)
                self.flush(seconds)
                self._wait_until(deadline)
                if not self._take():
                    raise ConnectionResetError from None
        self.flush(seconds)
        if hasattr(socket, "TCP_QUICKACK"):
            # There is no ticket to send now, with which the peer's last words would be acknowledged; a peer that
            # waits for that before its request (Nagle's algorithm) would lose the kernel's 40 ms.
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        # Pages that nothing is written to take no memory, and most connections that wait send little.
        self._taken = memoryview(mmap.mmap(-1, _READ_BYTES))
        cipher = self._engine.cipher()
        self.shown = PeerTls(self._engine.version() or "", cipher[0] if cipher else "", peer_fingerprint(self._engine))

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        let_wait(self._connection, left)

    def _take(self) -> int:
        """Take what the peer has sent; 0 when it sends no more."""
        try:
            count = self._connection.recv_into(self._taken)
        except BlockingIOError:
            raise TimeoutError from None
        if count:
            self.heard = True
            self._incoming.write(self._taken[:count])
        return count

    def read_into(self, view: memoryview, seconds: float) -> None:
        """Fill `view`; the contract of `PassedSocket.read_into`."""
        got = 0
        begun = time.monotonic()
        while got < len(view):
            try:
                count = cast(int, self._engine.read(len(view) - got, view[got:]))
                if not count:  # close_notify
                    raise ConnectionEndedError
                got += count
            except ssl.SSLWantReadError:
                # Records that hold no data (or not all of one) do not prolong it.
                if time.monotonic() - begun >= seconds:
                    raise (ConnectionEndedError if got else TimeoutError) from None
                try:
                    self.flush(seconds)  # answers of the engine's own: TLS 1.3 has updates of keys
                    taken = self._take()
                except TimeoutError:
                    raise (ConnectionEndedError if got else TimeoutError) from None
                except OSError as error:
                    raise ConnectionEndedError from error
                if not taken:
                    raise ConnectionEndedError from None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
                raise ConnectionEndedError from error
            except ssl.SSLError as error:
                LOGGER.warning("an association over TLS cannot be read on: %s", why_no_tls(error))
                self.say_why(_FAREWELL_SECONDS)
                raise ConnectionEndedError from error

    def discard(self, seconds: float) -> None:
        """Read what has come, and forget it; the contract of `PassedSocket.discard`."""
        self.read_into(memoryview(bytearray(1)), seconds)
        while left := self._engine.pending():
            self._engine.read(left)

    def write(self, data: bytes, seconds: float) -> None:
        """Send all of it.

        Raises
        ------
        OSError
            The connection ended, or the peer does not read.
        """
        self._engine.write(data)
        self.flush(seconds)

    def flush(self, seconds: float) -> None:
        """Send what the engine has to say; raises as `write` does, TimeoutError where the peer does not read."""
        left = memoryview(self._outgoing.read())
        begun = time.monotonic()
        while left:
            try:
                sent = self._connection.send(left)
            except BlockingIOError:
                raise TimeoutError from None
            left = left[sent:]
            if left and time.monotonic() - begun >= seconds:
                raise TimeoutError

    def say_why(self, seconds: float) -> None:
        """Send the alert that the engine has ready; whether it arrives changes nothing here."""
        with suppress(OSError):
            let_wait(self._connection, seconds)
            self.flush(seconds)

    def refuse(self) -> None:
        """Let the peer hear the alert of a failed handshake; what it has not read is lost where we close at once."""
        self.say_why(_FAREWELL_SECONDS)
        deadline = time.monotonic() + _FAREWELL_SECONDS
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self._connection.recv_into(self._taken):
                pass

    def say_end(self) -> None:
        """Send close_notify; the peer's own is not waited for."""
        with suppress(OSError):
            self._engine.unwrap()
        self.say_why(_FAREWELL_SECONDS)

    def release_buffers(self) -> None:
        """Give memory back; nothing is read any more."""
        self._taken = memoryview(b"")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()


class TlsSocket(PassedSocket):
    """The socket of an association over TLS, after its handshake."""

    def __init__(self, assoc: Association, client_socket: socket.socket, tls: TlsConnection) -> None:
        super().__init__(assoc, client_socket)
        self._tls = tls

    def read_into(self, view: memoryview) -> None:
        """Fill `view`; see `PassedSocket.read_into`."""
        if self.socket is None:
            raise ConnectionEndedError
        self._tls.read_into(view, self._seconds)

    def discard(self) -> None:
        """Read what has come, and forget it; see `PassedSocket.discard`."""
        if self.socket is None:
            raise ConnectionEndedError
        self._tls.discard(self._seconds)

    def send(self, bytestream: bytes) -> None:
        """Send all of it, or report that the connection is closed (Evt17), as pynetdicom's own does."""
        try:
            if self.socket is None:
                raise ConnectionEndedError
            self._tls.write(bytestream, self._seconds)
        except OSError:
            self.event_queue.put("Evt17")
            return
        evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})

    def close(self) -> None:
        """Say the end, and close the connection."""
        if self.socket is not None:
            self._tls.say_end()
        super().close()

    def release_buffers(self) -> None:
        """Give memory back at once; see `PassedSocket.release_buffers`."""
        self._tls.release_buffers()
