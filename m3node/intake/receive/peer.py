"""Who is at the other end of a connection, as far as the connection itself shows."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address


@dataclass(frozen=True, slots=True)
class PeerTls:
    """What a TLS handshake has shown.

    Attributes
    ----------
    version, cipher : str
        As OpenSSL names them.
    fingerprint : str
        SHA-256 of the certificate that the peer has shown, in lower-case hexadecimal; empty when it has shown none.
    """

    version: str
    cipher: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end.

    Attributes
    ----------
    address : str
        IP address, without a port.
    tls : PeerTls or None
        None on the plain port.
    """

    address: str
    tls: PeerTls | None = None


def address_of(connection: socket.socket) -> str:
    """Return whose connection it is, as logs and the audit trail show it: an IPv4 peer by its IPv4 address.

    Raises
    ------
    OSError
        The peer has gone.
    """
    address: str = connection.getpeername()[0]
    found = plain_address(address)
    return str(found) if isinstance(found, IPv4Address) else address


def plain_address(address: str) -> IPv4Address | IPv6Address | None:
    """Read an address so that it compares with those of the settings.

    An IPv4 peer of a socket that serves both protocols is shown as ``::ffff:10.1.2.3``; it is 10.1.2.3. A zone
    (``fe80::1%eth0``) names our interface, not the peer.

    Returns
    -------
    IPv4Address or IPv6Address or None
        None when it is no IP address: the peer of a socket of the file system.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
