"""What one hostile connection does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Way = Literal["plain", "TLS", "raw"]
"""To the plain port; to the port for TLS, after a handshake; to that port without one."""

End = Literal["close", "reset", "half", "silent"]
"""How the peer leaves: it closes; it resets; it says that no more comes, and listens; it says nothing, and listens."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Hear:
    """Wait for one PDU, or for the end of the connection.

    Attributes
    ----------
    stored : str
        What the node has promised to keep when this PDU holds a success (`digest`); empty when nothing.
    """

    stored: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A connection.

    Attributes
    ----------
    kind : str
        What is wrong: ``request``, ``pdu``, ``command``, ``data set``, ``series``, ``handshake`` or ``corpus``.
    words : str
        What is wrong with it, for who reads of a failure.
    steps : tuple
        What is said and heard, in order; it is over sooner when the node ends the connection.
    end : str
        How the peer leaves; over TLS nobody can say that no more comes, and goes on listening: it closes then.
    way : str
        How it comes.
    """

    kind: str
    words: str
    steps: tuple[Say | Hear, ...]
    end: End = "half"
    way: Way = "plain"


def digest(syntax: str, data: bytes) -> str:
    """What names a data set in its transfer syntax."""
    return hashlib.sha256(syntax.encode() + b"\0" + data).hexdigest()
