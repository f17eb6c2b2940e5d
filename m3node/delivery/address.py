"""Peers as people write them: ``AE@HOST:PORT``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from m3node.errors import ConfigError

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
"""PS3.5 6.2, AE: printable ASCII without a backslash."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application entity and where it listens."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


def parse_ae_title(text: str) -> str:
    """Return the AE title without the spaces around it.

    Raises
    ------
    ConfigError
        It is not one to sixteen printable ASCII characters without a backslash.
    """
    title = text.strip()
    if not _AE_TITLE.fullmatch(title):
        raise ConfigError(f"{text!r} is no AE title: 1 to 16 printable ASCII characters without a backslash are")
    return title


def parse_peer(text: str) -> Peer:
    """Read ``AE@HOST:PORT``; an IPv6 address stands in brackets.

    Raises
    ------
    ConfigError
        A part is missing or wrong; the message says which.

    Examples
    --------
    >>> parse_peer("ORTHANC@127.0.0.1:4242")
    Peer(ae_title='ORTHANC', host='127.0.0.1', port=4242)
    >>> parse_peer("PACS@[::1]:104").host
    '::1'
    """
    # The last @ divides: an AE title may hold one, a host may not.
    title, at, address = text.rpartition("@")
    if not at:
        raise ConfigError(f"{text!r} names no AE title; write AE@HOST:PORT, for example ORTHANC@127.0.0.1:4242")
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ConfigError(f"{text!r} needs a host and a port; write AE@HOST:PORT, for example ORTHANC@127.0.0.1:4242")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"in {text!r}, put the IPv6 address in brackets: AE@[::1]:104")
    if not host or any(character.isspace() or character in "[]" for character in host):
        raise ConfigError(f"{text!r} names no host; write AE@HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ConfigError(f"{port!r} in {text!r} is no port; a number of 1 to 65535 is")
    return Peer(ae_title=parse_ae_title(title), host=host, port=int(port))
