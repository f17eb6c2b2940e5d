"""How far the trail has got on its way to the repository: what the forwarder remembers, and what health asks.

Beside the trail lies ``forwarded.json``: for each of its files how many bytes the repository has for certain, and what
was wrong at last.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from m3node.audit.files import folder_of, months
from m3node.durable import write_over
from m3node.settings import Settings

_log = logging.getLogger(__name__)

SCHEMA = "m3node.audit.forwarded/1"
FILE = "forwarded.json"
BATCH_BYTES = 256 * 1024
MOST_COUNTED = 10_000
"""So many messages that wait are counted: a repository may be away for months, and health asks each second."""

_TIME = re.compile(rb' EventDateTime="([^"]+)"')
_WHOLE = re.compile(rb"<AuditMessage[ >].*</AuditMessage>")


@dataclass(frozen=True, slots=True)
class Standing:
    """What of the trail has not been forwarded.

    Attributes
    ----------
    behind : int
        Messages that the repository does not have for certain; `MOST_COUNTED` for so many or more.
    since : float or None
        When the oldest of them was, in seconds since the epoch; None without one.
    error : str
        What is in the way; empty when nothing is.
    """

    behind: int
    since: float | None
    error: str


def standing(settings: Settings) -> Standing | None:
    """Say how far the forwarder has got; None when the trail is forwarded nowhere.

    Raises
    ------
    OSError
        The trail cannot be read.
    """
    if not settings.audit.syslog.host:
        return None
    folder = folder_of(settings)
    memory = read_memory(folder)
    behind, since = 0, None
    for path in months(folder):
        place = memory.places.get(path.name, 0)
        while batch := read_batch(path, place):
            behind += len(batch.lines)
            if since is None and batch.lines:
                since = _instant(batch.lines[0])
            place = batch.end
            if behind >= MOST_COUNTED:
                return Standing(MOST_COUNTED, since, memory.error)
    return Standing(behind, since, memory.error)


@dataclass(slots=True)
class Memory:
    """What the forwarder remembers.

    Attributes
    ----------
    places : dict of str to int
        Bytes of each file that the repository has.
    error : str
        What was wrong at last; empty when it is well.
    """

    places: dict[str, int] = field(default_factory=dict)
    error: str = ""


def read_memory(folder: Path) -> Memory:
    """Read what the forwarder remembers; one that cannot be read is none, and everything is sent once more."""
    try:
        tree = json.loads((folder / FILE).read_bytes())
        if tree["schema"] != SCHEMA:
            raise ValueError(tree["schema"])
        return Memory({str(name): int(place) for name, place in tree["places"].items()}, str(tree["error"]))
    except FileNotFoundError:
        return Memory()
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s is damaged: the audit trail is forwarded from its beginning", folder / FILE)
        return Memory()


def write_memory(folder: Path, memory: Memory) -> None:
    """Write down what is remembered.

    Raises
    ------
    OSError
        The disk refuses.
    """
    tree = {"schema": SCHEMA, "places": memory.places, "error": memory.error}
    write_over(folder / FILE, (json.dumps(tree, indent=1) + "\n").encode("utf-8"))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some messages of a file.

    Attributes
    ----------
    lines : tuple of bytes
        Whole messages, without their ends.
    end : int
        Where the next one begins.
    """

    lines: tuple[bytes, ...]
    end: int


def read_batch(path: Path, place: int) -> Batch | None:
    """Read messages from a place of a file on; None when there are no further ones.

    A last line without its end is still being written. A line that a full disk tore is left out: it was written again.
    """
    with path.open("rb") as stream:
        stream.seek(place)
        data = stream.read(BATCH_BYTES)
        end = data.rfind(b"\n") + 1
        if not end and len(data) == BATCH_BYTES:  # a line longer than any of ours
            data += stream.readline()
            end = len(data) if data.endswith(b"\n") else 0
    if not end:
        return None
    return Batch(tuple(_whole(data[:end])), place + end)


def _whole(data: bytes) -> Iterator[bytes]:
    for line in data.split(b"\n"):
        if _WHOLE.fullmatch(line):
            yield line


def _instant(line: bytes) -> float | None:
    found = _TIME.search(line)
    try:
        return datetime.fromisoformat(found[1].decode("ascii")).timestamp() if found else None
    except ValueError:
        return None
