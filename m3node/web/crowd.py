"""The page's port, which a crowd cannot close to others: it has room for so many connections, and for each that comes
to a full one the oldest goes of the address that has most. Whoever holds them all is in nobody's way but his own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import defaultdict
from typing import Any

from m3node.web.signing_in import neighbourhood


class CrowdedSocket(socket.socket):
    """A listening socket that counts what it has accepted, handshakes that have not come among them.

    Parameters
    ----------
    *arguments
        As of `socket.socket`.
    most : int
        Connections at once.
    """

    def __init__(self, *arguments: Any, most: int, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._most = most
        self._there: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._count = 0
        self._changing = threading.RLock()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; who is in its way is hung up on."""
        made, address = super().accept()
        connection = Connection(made.family, made.type, made.proto, fileno=made.detach())
        connection.of, connection.address = self, neighbourhood(str(address[0]))
        with self._changing:
            while self._count >= self._most:
                most = max(self._there.values(), key=len)
                oldest = next(iter(most))
                self.forget(oldest)
                # Not closed: the event loop still has it, and closes it when it reads that there is nothing more.
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._there[connection.address][connection] = None
            self._count += 1
        return connection, address

    def forget(self, connection: Connection) -> None:
        """Count a connection no more."""
        with self._changing:
            there = self._there.get(connection.address, {})
            if connection in there:
                del there[connection]
                self._count -= 1
            if not there:
                self._there.pop(connection.address, None)


class Connection(socket.socket):
    """A connection that says when it is closed."""

    of: CrowdedSocket | None = None
    address = ""

    def close(self) -> None:
        """Close it."""
        super().close()
        if self.of is not None:
            self.of.forget(self)
            self.of = None
