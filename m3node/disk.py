"""How much room the disk has, and the marks below which the node takes care of it or takes nothing in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 1.0
"""How long a measurement counts: a store asks at every instance."""

MARGIN = 1.05
"""So much more than the mark must be free again before it counts as passed: a disk at the mark must not flicker."""


def free_mb(folder: Path) -> float:
    """Return the space that this process may still use on a folder's disk, in MB (10^6 bytes).

    Raises
    ------
    OSError
        The folder is not there.
    """
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize / 1e6


class Watermark:
    """A mark of free space; safe to ask from several threads.

    Parameters
    ----------
    folder : Path
        On the disk that is watched.
    mb : float
        The mark, in MB; 0 switches it off.
    measure, clock : callable
        Free space in MB of a folder, and monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        mb: float,
        *,
        measure: Callable[[Path], float] = free_mb,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mb = mb
        self._folder = folder
        self._measure = measure
        self._clock = clock
        self._seen: tuple[float, bool] | None = None
        self._told = False

    def below(self, *, now: bool = False) -> bool:
        """Whether less is free than the mark says.

        Parameters
        ----------
        now : bool
            Measure, however short ago that was done.
        """
        if self.mb <= 0:
            return False
        at, seen = self._clock(), self._seen
        if seen is not None and not now and at - seen[0] < LOOK_SECONDS:
            return seen[1]
        try:
            free = self._measure(self._folder)
        except OSError:
            return False  # what is wrong with the folder, whoever uses it will hear
        below = free < self.mb * (MARGIN if seen is not None and seen[1] else 1.0)
        self._seen = (at, below)
        return below

    def crossed(self) -> bool | None:
        """Return True once when the disk has gone below the mark, False once when it is back, None in between."""
        below = self.below()
        if below == self._told:
            return None
        self._told = below
        return below
