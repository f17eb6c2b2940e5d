"""The connection below an association that we open: plain or over TLS, each step bounded in time, failures in words.

pynetdicom's own would send the association request as soon as the handshake is over, before a pinned certificate is
looked at; would wait for data in TLS 1.3 where the peer has sent only what TLS sends of its own accord; and only logs
why a connection failed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from m3node.delivery.address import Peer, Timeouts
from m3node.errors import ConfigError
from m3node.tls.calling import HandshakeError, is_untrusted, secure, why_lost
from m3node.tls.contexts import PinError

if TYPE_CHECKING:
    from pynetdicom.association import Association

_READ = 16384
"""Of a TLS record (RFC 8446 5.1)."""

_LARGEST = 1024 * 1024
"""Bytes of a PDU. No acceptance is larger, and of data we take 16 KiB; a length above is noise, and would be kept."""

_CONNECTED, _FAILED, _CLOSED = "Evt2", "Evt17", "Evt17"
"""Events of PS3.8 9.2.2, as pynetdicom names them."""

_TLS_ALERT = b"\x15\x03"
"""How a peer that wants TLS answers an association request (RFC 8446 5.1)."""


class Transport(AssociationSocket):
    """pynetdicom's socket; used by its provider's thread.

    Attributes
    ----------
    trouble : str
        Why there is no connection, or why it was lost before the peer had said anything; a clause.
    untrusted : bool
        Whether that is because the peer is not who it should be.
    """

    def __init__(self, association: Association, address: AddressInformation, peer: Peer, timeouts: Timeouts) -> None:
        super().__init__(association, address=address)
        self.trouble = ""
        self.untrusted = False
        self._peer = peer
        self._timeouts = timeouts
        self._ahead = b""
        self._answered = False

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, and shake hands; the association request leaves behind that."""
        try:
            self._open(primitive.address_info.as_tuple)
        except OSError as error:
            self._give_up(primitive, _why(error))
        except (HandshakeError, PinError, ConfigError) as error:
            self.untrusted = is_untrusted(error)
            self._give_up(primitive, str(error))
        else:
            self._is_connected = True
            primitive.result = _CONNECTED
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    def _open(self, address: tuple[Any, ...]) -> None:
        transport = self.socket
        assert transport is not None  # made when this was
        transport.settimeout(self._timeouts.connect)
        transport.connect(address)
        # Without it each object's last segment waits for an acknowledgement: half the speed.
        transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._peer.tls is not None:
            self.socket = None  # from here on it is the handshake's to close
            called = (self._peer.host, self._peer.port)
            transport = self.socket = secure(transport, called, self._peer.tls, self._timeouts.connect)
        # A peer that stops reading must end in an error, not in a thread that blocks in send for ever.
        transport.settimeout(self._timeouts.response)
        self.assoc.requestor.address_info = AddressInformation.from_tuple(transport.getsockname())

    def _give_up(self, primitive: T_CONNECT, why: str) -> None:
        self.trouble = why
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        primitive.result = _FAILED

    @property
    def ready(self) -> bool:
        """Whether there is data of the association to read; records that are only TLS's own are taken and are none."""
        if not isinstance(self.socket, ssl.SSLSocket) or not self._is_connected:
            return super().ready
        if self._ahead:
            return True
        if not super().ready:
            return False
        try:
            self.socket.setblocking(False)
            try:
                self._ahead = self.socket.recv(_READ)
            finally:
                self.socket.settimeout(self._timeouts.response)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (OSError, ValueError) as error:
            self._lost(error)
            self.event_queue.put(_CLOSED)
            return False
        return True  # also at the end of the stream, which the next reading finds

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, all of them within the time for an answer; fewer at the end of the stream."""
        if nr_bytes > _LARGEST:
            raise ConnectionAbortedError  # as where the connection is lost: nothing behind it can be found
        taken, self._ahead = bytearray(self._ahead[:nr_bytes]), self._ahead[nr_bytes:]
        try:
            self._read(taken, nr_bytes)
        except OSError as error:
            self._lost(error)
            raise
        if not taken:
            self._lost(ConnectionResetError())
        elif not self._answered and self._peer.tls is None and taken.startswith(_TLS_ALERT):
            self.trouble = "it answers in TLS: set tls for it"
        self._answered = self._answered or bool(taken)
        return taken

    def _read(self, taken: bytearray, count: int) -> None:
        transport = self.socket
        assert transport is not None  # as long as anybody reads
        left = self._timeouts.response
        deadline = time.monotonic() + left
        try:
            while len(taken) < count:
                if left <= 0:
                    raise TimeoutError  # each byte came in time, but a peer that drips would hold us for hours
                transport.settimeout(left)
                more = transport.recv(count - len(taken))
                if not more:
                    return
                taken += more
                left = deadline - time.monotonic()
        finally:
            transport.settimeout(self._timeouts.response)

    def send(self, bytestream: bytes) -> None:
        """Send all of it; a connection that breaks is an event, as pynetdicom has it."""
        try:
            if self.socket is None:
                raise BrokenPipeError
            self.socket.sendall(bytestream)
        except OSError as error:
            self._lost(self._last_words(error))
            self.event_queue.put(_CLOSED)

    def _last_words(self, error: OSError) -> OSError:
        """Return why the peer broke the connection, which may wait to be read, rather than that it is broken."""
        if isinstance(self.socket, ssl.SSLSocket) and not isinstance(error, TimeoutError):
            try:
                self.socket.recv(_READ)
            except ssl.SSLError as alert:  # TLS 1.3 asks for our certificate behind the handshake
                return alert
            except (OSError, ValueError):
                return error
        return error

    def close(self) -> None:
        """Take leave, as TLS wants it (RFC 8446 6.1), without waiting for the peer to do so."""
        if isinstance(self.socket, ssl.SSLSocket) and self._is_connected:
            with contextlib.suppress(OSError, ValueError):
                self.socket.setblocking(False)
                self.socket.unwrap()
        super().close()

    def _shutdown_socket(self) -> None:
        """Close the connection; another thread may be using it."""
        transport = self.socket
        if transport is None:
            return
        with contextlib.suppress(OSError):
            # Not SSLSocket's own: it forgets first that there is TLS, and what another thread sends then goes in the
            # clear.
            socket.socket.shutdown(transport, socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            transport.close()

    def _lost(self, error: Exception) -> None:
        if self._answered or self.trouble or isinstance(error, TimeoutError):
            return
        if self._peer.tls is None:
            self.trouble = "it hangs up on the association request: does it want TLS?"
        else:
            self.trouble = why_lost(error, (self._peer.host, self._peer.port), self._peer.tls)


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "the host does not answer"
    return error.strerror or type(error).__name__
