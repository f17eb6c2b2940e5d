"""What acceptor and receivers say to each other, over a socket pair that keeps message boundaries (SOCK_SEQPACKET).

A message is a word, the number of the connection that it is about, and a text that only some have. Asking is rare: once
for an association, and once for an instance only where instances a minute are limited.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum

LARGEST = 256
"""Bytes of a message; the longest text is an AE title or the name of a setting."""

_UNREAD_BYTES = 16 * 1024
"""Some forty messages: connections that a busy receiver has not taken wait in the order of the port instead."""


class Word(StrEnum):
    """What a message says."""

    # Acceptor to receiver
    SERVE = "serve"
    """Serve the passed socket."""
    SERVE_TLS = "serve_tls"
    """Serve the passed socket, after a TLS handshake."""
    CLOSE = "close"
    """Close a connection that waits: others came after it, and there is no room for so many."""
    ANSWER = "answer"
    """To `ADMIT` (a `m3node.intake.receive.connections.Grant`) or to `INSTANCE` (seconds, and the limit)."""
    STOP = "stop"
    """End, when the open associations have."""

    # Receiver to acceptor
    READY = "ready"
    """Sockets may come."""
    ADMIT = "admit"
    """May this connection be an association of the AE title in the text?"""
    INSTANCE = "instance"
    """When may an instance of this association be taken in?"""
    ENDED = "ended"
    """A connection is closed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes
    ----------
    word : Word
        What it says.
    number : int
        The connection; 0 where it is about none.
    text : str
        What belongs to it.
    """

    word: Word
    number: int = 0
    text: str = ""

    def encoded(self) -> bytes:
        """Return its bytes."""
        return f"{self.word} {self.number} {self.text}".encode()


def decoded(message: bytes) -> Message:
    """Read a message; the other end is of the same release, so that it is one."""
    word, number, text = message.decode().split(" ", 2)
    return Message(Word(word), int(number), text)


def channel_ends() -> tuple[socket.socket, socket.socket]:
    """Make a channel: the acceptor's end, which never waits, and the receiver's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
    return ours, theirs
