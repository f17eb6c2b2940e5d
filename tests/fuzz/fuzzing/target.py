"""The node under attack: its processes, what they hold, and what they said."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fuzzing.case import digest
from m3node.intake.receive.association import LeaseReader
from m3node.intake.receive.spool import INCOMING
from m3node.process import process_started
from part10_file import split_file
from served import ServedNode

_STARTED = re.compile(r"started (\S+) \(process (\d+)\)")
BAD_WORDS = ("Traceback", "unexpected", "died", "is killed", "started again", "did not end")
"""What no line of the log says while all goes well."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds.

    Attributes
    ----------
    memory_mb : float
        Resident, in 10^6 bytes.
    sockets : int
        Each connection has one.
    """

    memory_mb: float
    sockets: int


def roles(node: ServedNode) -> dict[str, int]:
    """The processes of the node that peers' bytes come to, by name: acceptor, receivers, keeper."""
    latest = {role: int(pid) for role, pid in _STARTED.findall(node.log)}
    found = {role: latest[role] for role in ("acceptor", "keeper")}
    children = " ".join(path.read_text() for path in Path(f"/proc/{found['acceptor']}/task").glob("*/children"))
    receivers = [int(pid) for pid in children.split() if b"resource_tracker" not in _command(int(pid))]
    return found | {f"receiver {n}": pid for n, pid in enumerate(sorted(receivers))}


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def held(pid: int) -> Held:
    """What a process holds right now; nothing when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        handles = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return Held(0.0, 0)
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Held(int(values["VmRSS"].split()[0]) * 1024 / 1e6, sum(_is_socket(handle) for handle in handles))


def _is_socket(handle: Path) -> bool:
    try:
        return os.readlink(handle).startswith("socket:")
    except OSError:  # closed between two looks
        return False


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    return bool(process_started(pid))


def open_leases(node: ServedNode) -> list[str]:
    """Associations that are not over, as the keeper sees them."""
    reader = LeaseReader(node.layout.associations)
    reader.poll()
    return [lease.id for lease in reader.leases.values() if lease.closed_at is None]


def complaints(node: ServedNode, secrets: Iterable[str] = ()) -> list[str]:
    """Lines of the log that tell of a crash, or that name a patient."""
    bad = (*BAD_WORDS, *secrets)
    return [line for line in node.log.splitlines() if any(word in line for word in bad)]


def kept(node: ServedNode) -> set[str]:
    """What lies in the spool (`fuzzing.case.digest`)."""
    return {digest(*_content(path)) for path in node.layout.spool.rglob("*.dcm") if path.parent.name != INCOMING}


def _content(path: Path) -> tuple[str, bytes]:
    meta, data = split_file(path)
    return str(meta.TransferSyntaxUID), data
