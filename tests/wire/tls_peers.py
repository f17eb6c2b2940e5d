"""Peers that speak TLS, or should: what they show, what they want, and what they were told before they were trusted."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from certified import Authority, Shown
from m3node.settings import Destination

Version = Literal["1.1", "1.2", "1.3"]


def speaking(shown: Shown, *, callers: Authority | None = None, only: Version | None = None) -> ssl.SSLContext:
    """A server's context that is not made by the code under test; with ``callers`` it wants a certificate of theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(shown.certificate), str(shown.key))
    if callers is not None:
        context.load_verify_locations(cafile=str(callers.file))
        context.verify_mode = ssl.CERT_REQUIRED
    if only is not None:
        version = ssl.TLSVersion[f"TLSv{only.replace('.', '_')}"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an old version is what some tests are about
            context.minimum_version, context.maximum_version = version, version
        if only == "1.1":
            context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@dataclass(frozen=True)
class World:
    """Two authorities, and what they signed."""

    authority: Authority
    stranger: Authority
    pacs: Shown
    ours: Shown
    unknown: Shown

    @classmethod
    def made(cls, folder: Path) -> World:
        authority, stranger = Authority(folder), Authority(folder, "stranger")
        return cls(authority, stranger, authority.issue("pacs"), authority.issue("m3node"), stranger.issue("unknown"))

    @property
    def trust(self) -> dict[str, object]:
        """The settings that trust the PACS."""
        return {"ca_file": self.authority.file}


def shows(shown: Shown) -> dict[str, object]:
    """The settings by which we show a certificate."""
    return {"client_certificate_file": shown.certificate, "client_key_file": shown.key}


@dataclass
class Listening:
    """What came behind the handshakes, each of which is counted."""

    port: int
    handshakes: int = 0
    connections: int = 0
    data: bytearray = field(default_factory=bytearray)

    def destination(self, **settings: object) -> Destination:
        to = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": self.port, "tls": True}
        return Destination(**to | settings)


@contextmanager
def listening(handle: Callable[[socket.socket, Listening], None]) -> Iterator[Listening]:
    """Let ``handle`` have each connection, in a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))
    state = Listening(server.getsockname()[1])
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                state.connections += 1
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            handle(connection, state)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for one in [thread, *threads]:
            one.join(60)


def hears(context: ssl.SSLContext) -> Callable[[socket.socket, Listening], None]:
    """Shake hands, and note whatever the caller says until it hangs up."""

    def handle(connection: socket.socket, state: Listening) -> None:
        with context.wrap_socket(connection, server_side=True) as shaken:
            state.handshakes += 1
            while block := shaken.recv(65536):
                state.data += block

    return handle


def says_nothing(connection: socket.socket, state: Listening) -> None:
    """Take the connection and whatever is said, and never answer."""
    while connection.recv(65536):
        pass


def drips(connection: socket.socket, state: Listening) -> None:
    """Begin a record that is as long as records may be, a byte at a time, each in time."""
    connection.recv(65536)
    for byte in b"\x16\x03\x03\x40\x00\x02" + bytes(16383):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def refuses_pdus(connection: socket.socket, state: Listening) -> None:
    """Answer a PDU that is none with A-ABORT (PS3.8 9.3.8), as a plain DICOM peer does."""
    connection.recv(65536)
    connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01")


def hangs_up(connection: socket.socket, state: Listening) -> None:
    """Take the caller's first words and leave."""
    connection.recv(65536)


def wants_tls(connection: socket.socket, state: Listening) -> None:
    """Answer what is no record of TLS with an alert: unexpected message (RFC 8446 6)."""
    connection.recv(65536)
    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x0a")


def leaves(context: ssl.SSLContext) -> Callable[[socket.socket, Listening], None]:
    """Shake hands, and hang up without a word."""

    def handle(connection: socket.socket, state: Listening) -> None:
        context.wrap_socket(connection, server_side=True).close()

    return handle
