"""An audit message as a syslog message (RFC 5424), and how messages follow each other over TLS (RFC 5425)."""

from __future__ import annotations

import re

PRI = 85
"""Facility 10 (security and authorization), severity 5 (notice), as PS3.15 A.6 has it for audit messages."""

APP_NAME, MSGID = "m3node", "DICOM+RFC3881"

BOM = b"\xef\xbb\xbf"
"""Says that what follows is UTF-8 (RFC 5424 6.4)."""

_TIME = re.compile(rb' EventDateTime="([0-9T:.Z-]{1,32})"')
_UNPRINTABLE = re.compile(r"[^!-~]")


def packet(line: bytes, *, host: str, pid: int) -> bytes:
    """Put an audit message into a syslog message.

    Parameters
    ----------
    line : bytes
        The message; its own time becomes that of the syslog message.
    host : str
        Name of this machine.
    pid : int
        Process that sends it.
    """
    found = _TIME.search(line)
    at = found[1].decode("ascii") if found else "-"
    head = f"<{PRI}>1 {at} {_UNPRINTABLE.sub('', host)[:255] or '-'} {APP_NAME} {pid} {MSGID} - "
    return head.encode("ascii") + BOM + line


def frame(message: bytes) -> bytes:
    """Put the length before a syslog message, by which the receiver tells where it ends (RFC 5425 4.3)."""
    return f"{len(message)} ".encode("ascii") + message
