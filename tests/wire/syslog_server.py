"""A repository of audit messages for tests: syslog over TLS as RFC 5425 frames it, parsed byte by byte."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from certified import Authority, Shown


class SyslogServer:
    """Takes connections on a port of its own; keeps every message in the order in which it was read."""

    def __init__(self, shown: Shown, clients: Authority | None = None, port: int = 0) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(shown.certificate, shown.key)
        if clients is not None:
            self.context.load_verify_locations(clients.file)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.messages: list[bytes] = []
        self.connections = 0
        self.goodbyes = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        """Go down at once: connections are cut, not closed."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(raw,)))
            self._threads[-1].start()

    def _serve(self, raw: socket.socket) -> None:
        self._open.add(raw)
        try:
            with self.context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as connection:
                self._open.add(connection)
                self.connections += 1
                for message in frames(connection.recv):
                    self.messages.append(message)
                self.goodbyes += 1
                connection.unwrap()
        except OSError:
            return


def frames(receive: Callable[[int], bytes]) -> Iterator[bytes]:
    """Cut a stream into messages by RFC 5425 4.3: ``MSG-LEN SP SYSLOG-MSG``, no leading zero."""
    while first := receive(1):
        digits = b""
        while first != b" ":
            assert first.isdigit(), first
            digits += first
            first = receive(1)
        assert digits
        assert not digits.startswith(b"0")
        message = b""
        while len(message) < int(digits):
            part = receive(int(digits) - len(message))
            if not part:
                return
            message += part
        yield message


@contextmanager
def syslog_server(shown: Shown, clients: Authority | None = None, port: int = 0) -> Iterator[SyslogServer]:
    server = SyslogServer(shown, clients, port)
    try:
        yield server
    finally:
        server.stop()
