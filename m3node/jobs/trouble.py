"""Says that disk or database is in the way of something: when that begins, once in a while, and when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from m3node.errors import DatabaseError

_log = logging.getLogger(__name__)

REMINDER_SECONDS = 60.0


class Trouble:
    """What is tried again and again, and said at most once a minute.

    Parameters
    ----------
    what : str
        What cannot be done, for the log.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._said_at: float | None = None

    def keeps_from(self, work: Callable[[], object]) -> bool:
        """Try to do it; return whether trouble came in the way."""
        try:
            work()
        except (DatabaseError, OSError) as error:
            self.met(error)
            return True
        self.over()
        return False

    def met(self, error: DatabaseError | OSError) -> None:
        """Say that it came in the way, unless that was said a moment ago."""
        now = self._clock()
        if self._said_at is None or now - self._said_at >= REMINDER_SECONDS:
            _log.error("%s: %s; trying again", self._what, error.strerror if isinstance(error, OSError) else error)
            self._said_at = now

    def over(self) -> None:
        """Say that it is over, where it had come in the way."""
        if self._said_at is not None:
            _log.info("%s: works again", self._what)
        self._said_at = None
