"""Tells when something that is being copied into a folder has stopped changing.

Network file systems send no events and show sizes late, so the only sign that a copy is over is that nothing has
changed for a while.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes while an entry is being written: its files, their bytes and their newest modification time."""

    files: int
    size: int
    newest_ns: int


def fingerprint(path: Path) -> Fingerprint | None:
    """Measure a file or a whole folder without following links; None when it is gone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return Fingerprint(1, status.st_size, status.st_mtime_ns)
    files, size, newest = 0, 0, status.st_mtime_ns
    for folder, _, names in os.walk(path):
        newest = max(newest, _modified(folder))
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            files += 1
            size += status.st_size
            newest = max(newest, status.st_mtime_ns)
    return Fingerprint(files, size, newest)


def _modified(folder: str) -> int:
    try:
        return os.lstat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0


class Settling:
    """Remembers since when each entry has not changed.

    Parameters
    ----------
    seconds : float
        An entry that has been the same for so long is settled.
    clock : callable
        Monotonic seconds; the modification times' own clock may be another machine's.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[Path, tuple[Fingerprint, float]] = {}

    def settled(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Look at the entries again; return those that are settled. What is not named any more is forgotten."""
        now = self._clock()
        seen: dict[Path, tuple[Fingerprint, float]] = {}
        for path in paths:
            print_ = fingerprint(path)
            if print_ is None:
                continue
            before = self._seen.get(path)
            since = before[1] if before is not None and before[0] == print_ else now
            seen[path] = (print_, since)
        self._seen = seen
        return tuple(path for path, (print_, since) in seen.items() if print_.files and now - since >= self._seconds)
