"""Whether our ports are listened on, without calling them: a probe of the TLS port would be audited as a stranger."""

from __future__ import annotations

import socket
from pathlib import Path

from m3node.jobs.locks import Holder

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Below ``self``, which is there under ``ProcSubset=pid``, too."""
_LISTENS = "0A"
"""State of a listening socket in these tables (proc(5), ``TCP_LISTEN``)."""


def not_listened_on(held: Holder) -> tuple[int, ...]:
    """Return the ports of the listener that no process of this machine listens on.

    None where that cannot be told: the listener runs on another machine, it has not said yet which ports it has, or
    this system has no such tables.
    """
    listened = _listened_on()
    if held.host != socket.gethostname() or listened is None:
        return ()
    return tuple(port for port in held.ports if port not in listened)


def _listened_on() -> set[int] | None:
    ports: set[int] = set()
    read = False
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        read = True
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTENS:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports if read else None
