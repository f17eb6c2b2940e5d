"""The accepted socket of an association, as one thread reads it that waits for nothing else."""

from __future__ import annotations

import math
import socket
import struct
import time

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

_DISCARDED_BYTES = 64 * 1024


class ConnectionEndedError(ConnectionError):
    """The peer closed the connection, or fell silent inside a PDU."""


class PassedSocket(AssociationSocket):
    """The accepted socket of an association; reads exactly, and never asks whether it could."""

    def __init__(self, assoc: Association, client_socket: socket.socket) -> None:
        client_socket.setblocking(True)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(assoc, client_socket=client_socket)
        self._seconds = math.inf

    def wait_at_most(self, seconds: float) -> None:
        """Set how long a read or a write may wait; the kernel counts, which costs no further system call."""
        self._seconds = seconds
        if self.socket is not None:
            let_wait(self.socket, seconds)

    def read_into(self, view: memoryview) -> None:
        """Fill `view`.

        Raises
        ------
        TimeoutError
            Nothing came in time.
        ConnectionEndedError
            The connection ended, or did not give all of the bytes in time.
        """
        got = 0
        begun = time.monotonic()
        while got < len(view):
            if self.socket is None:
                raise ConnectionEndedError
            try:
                count = self.socket.recv_into(view[got:], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                if got:
                    raise ConnectionEndedError from None
                raise TimeoutError from None
            except OSError as error:
                raise ConnectionEndedError from error
            if not count:
                raise ConnectionEndedError
            got += count
            # A peer that drips a byte a minute would hold its place among the associations for ever.
            if got < len(view) and time.monotonic() - begun >= self._seconds:
                raise ConnectionEndedError

    def discard(self) -> None:
        """Read what has come, and forget it; raises as `read_into` does."""
        if self.socket is None:
            raise ConnectionEndedError
        try:
            come = self.socket.recv(_DISCARDED_BYTES)
        except BlockingIOError:
            raise TimeoutError from None
        except OSError as error:
            raise ConnectionEndedError from error
        if not come:
            raise ConnectionEndedError

    def release_buffers(self) -> None:
        """Give memory back at once; nothing is read or written any more."""


def let_wait(connection: socket.socket, seconds: float) -> None:
    """Set how long a read or a write of a blocking socket may wait; it raises BlockingIOError when time is up."""
    whole = int(seconds)
    timeout = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
