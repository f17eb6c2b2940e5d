"""Whom to call, and how: from the settings, or as people write it, ``AE@HOST:PORT``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from m3node.errors import ConfigError
from m3node.settings import DeliverySettings, Destination, TlsVersion
from m3node.tls.calling import Terms

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
"""PS3.5 6.2, AE: printable ASCII without a backslash."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application entity and where it listens.

    Attributes
    ----------
    tls : Terms or None
        How it is called over TLS; in the clear without it.
    """

    ae_title: str
    host: str
    port: int
    tls: Terms | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds: for a connection and its acceptance, and for each answer."""

    connect: float = 10.0
    response: float = 30.0


def timeouts_of(delivery: DeliverySettings) -> Timeouts:
    """Return how long to wait for destinations."""
    return Timeouts(connect=delivery.connect_seconds, response=delivery.response_seconds)


def peer_of(destination: Destination, minimum: TlsVersion) -> Peer:
    """Return whom to call for a destination that has an AE title.

    Parameters
    ----------
    destination : Destination
        From the settings.
    minimum : str
        The oldest version of TLS, ``delivery.tls_minimum``.
    """
    tls = terms_of(destination, minimum) if destination.tls else None
    return Peer(destination.ae_title or "", destination.host, destination.port, tls)


def terms_of(destination: Destination, minimum: TlsVersion) -> Terms:
    """Return how a destination is called over TLS."""
    return Terms(
        ca_file=destination.ca_file,
        name=destination.tls_name,
        pins=destination.certificate_sha256,
        client_certificate_file=destination.client_certificate_file,
        client_key_file=destination.client_key_file,
        client_key_password_file=destination.client_key_password_file,
        minimum=minimum,
        section=f"destination {destination.name}",
    )


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
    Peer(ae_title='ORTHANC', host='127.0.0.1', port=4242, tls=None)
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
