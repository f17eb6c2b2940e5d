"""Log lines about what somebody does over and over: a few of them, and then how often it came again.

Whoever is refused can come a thousand times a minute, under as many titles as he likes, and must not fill the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from m3node.logs import about_nothing

TIMES = 3
"""So often a line stands in the log within a minute; then it is counted."""

MOST = 200
"""Different lines in a minute; what comes beyond is counted together."""

WINDOW_SECONDS = 60.0

OTHERS = "further refusals, too many to name each"


@dataclass(slots=True)
class _Window:
    opened: float
    level: int
    said: int = 0
    more: int = 0


class RepeatedLines:
    """Writes to a log; safe for threads.

    Parameters
    ----------
    logger : logging.Logger
        Where the lines go.
    times : int
        So often each is written within a minute.
    clock : callable
        Seconds that do not jump.
    """

    def __init__(
        self, logger: logging.Logger, *, times: int = TIMES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._times = times
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def say(self, level: int, line: str) -> None:
        """Write a line, or count it."""
        with self._lock:
            now = self._clock()
            with about_nothing():  # others' refusals
                for again in self._due(now):
                    self._logger.log(*again)
            if line not in self._windows and len(self._windows) >= MOST:
                line = OTHERS
            window = self._windows.setdefault(line, _Window(now, level))
            if window.said == self._times:
                window.more += 1
                return
            window.said += 1
            self._logger.log(level, "%s", line)

    def count(self, *, all_of_them: bool = False) -> None:
        """Write how often lines came again whose minute is over; to be called about each second."""
        with self._lock:
            for again in self._due(self._clock(), all_of_them=all_of_them):
                self._logger.log(*again)

    def _due(self, now: float, *, all_of_them: bool = False) -> list[tuple[int, str, str, int]]:
        over = [
            (line, window)
            for line, window in self._windows.items()
            if all_of_them or now - window.opened >= WINDOW_SECONDS
        ]
        for line, _ in over:
            del self._windows[line]
        return [
            (window.level, "%s: and %d more within a minute", line, window.more) for line, window in over if window.more
        ]
