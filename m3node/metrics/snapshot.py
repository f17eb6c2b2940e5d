"""The file that a process leaves its counts in, ``metrics/<process>.json``."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from m3node.metrics.families import SECONDS
from m3node.process import process_started

SCHEMA = "m3node.metrics/1"

Key = tuple[str, ...]
"""Name of a family, then the values of its labels."""
Times = tuple[tuple[int, ...], float]
"""How many fell into each bucket of `SECONDS`, and how many were longer; and their sum."""


@dataclass(slots=True)
class Counts:
    """What was counted.

    Attributes
    ----------
    totals : dict
        Counters.
    times : dict
        Times of stages, by the stage.
    """

    totals: dict[Key, float] = field(default_factory=dict)
    times: dict[Key, Times] = field(default_factory=dict)

    def copy(self) -> Counts:
        """Return the same, which does not change any more."""
        return Counts(dict(self.totals), dict(self.times))

    def add(self, other: Counts) -> None:
        """Add what another process counted, or this one before."""
        for key, amount in other.totals.items():
            self.totals[key] = self.totals.get(key, 0) + amount
        for key, (buckets, total) in other.times.items():
            mine, so_far = self.times.get(key, ((0,) * len(buckets), 0.0))
            self.times[key] = (tuple(map(int.__add__, mine, buckets)), so_far + total)


def write_counts(path: Path, counts: Counts) -> None:
    """Put a file in the place of the one before, which a reader sees until then.

    Not synchronised: what a power cut takes are counts.

    Raises
    ------
    OSError
        The disk refuses; nothing is left of it.
    """
    tree = {
        "schema": SCHEMA,
        "owner": _myself(),
        "totals": [[*key, amount] for key, amount in sorted(counts.totals.items())],
        "times": [[*key, list(buckets), total] for key, (buckets, total) in sorted(counts.times.items())],
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(tree, separators=(",", ":")) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_counts(path: Path) -> Counts:
    """Read a process's file; one that is missing, damaged or of another release counts nothing."""
    try:
        tree = json.loads(path.read_bytes())
        if tree["schema"] != SCHEMA:
            return Counts()
        totals = {_key(row[:-1]): _number(row[-1]) for row in tree["totals"]}
        times = {_key(row[:-2]): (_buckets(row[-2]), _number(row[-1])) for row in tree["times"]}
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return Counts()
    return Counts(totals, times)


def is_kept_by_another(path: Path) -> bool:
    """Whether a living process of this machine keeps the file: who comes second to a role is about to be refused it."""
    try:
        owner = json.loads(path.read_bytes())["owner"]
        host, pid, started = str(owner[0]), int(owner[1]), str(owner[2])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False
    return host == socket.gethostname() and pid != os.getpid() and process_started(pid) == started


def all_counts(folder: Path) -> Counts:
    """Return what all processes have counted; those that are not there any more as well."""
    whole = Counts()
    for path in sorted(folder.glob("*.json")):
        whole.add(read_counts(path))
    return whole


def _myself() -> list[object]:
    pid = os.getpid()
    return [socket.gethostname(), pid, process_started(pid)]


def _key(words: Iterable[object]) -> Key:
    key = tuple(word for word in words if isinstance(word, str))
    if not key or len(key) != len(list(words)):
        raise ValueError("no key")
    return key


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError("no count")
    return value


def _buckets(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != len(SECONDS) + 1:
        raise ValueError("other buckets")
    return tuple(int(_number(count)) for count in value)
