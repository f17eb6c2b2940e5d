"""Something that is made from files, made anew when they change: certificates are renewed without a restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from m3node.errors import ConfigError

LOGGER = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_SECONDS = 60.0
"""Files that could not be used are read again after so long though they have not changed: it may have been the system's
trouble (no handle free, a file server)."""

_Look = tuple[tuple[int, int, int, int] | None, ...]


class Reloading(Generic[T]):
    """What `make` makes from files; safe for threads.

    Parameters
    ----------
    make : callable
        Raises `ConfigError` when the files cannot be used.
    files : sequence of Path
        What it reads. They are looked at (``stat``) for each `current`, which costs microseconds, and read when one of
        them is another one, or has been written or had its permissions changed.
    clock : callable
        Seconds that do not jump.
    worn : callable
        Whether what was made has served for long enough, and is made anew from files that have not changed.
    """

    def __init__(
        self,
        make: Callable[[], T],
        files: Sequence[Path],
        clock: Callable[[], float] = time.monotonic,
        worn: Callable[[T], bool] = lambda _: False,
    ) -> None:
        self._make = make
        self._worn = worn
        self._files = tuple(files)
        self._clock = clock
        self._tried_at = 0.0
        self._lock = threading.Lock()
        self._made: T | None = None
        self._seen: _Look | None = None
        self.trouble = ""
        """Why the files, as they are now, cannot be used; empty when they can."""

    def current(self) -> T:
        """Return what the files make; when they cannot be used, what they made last.

        Raises
        ------
        ConfigError
            They cannot be used, and never could.
        """
        with self._lock:
            look = self._look()
            if look != self._seen or (self.trouble and self._clock() - self._tried_at >= AGAIN_SECONDS):
                # Looked at before they are read: what changes meanwhile is seen by the next call.
                self._seen = look
                self._renew()
            elif self._made is not None and not self.trouble and self._worn(self._made):
                self._renew(quietly=True)
            if self._made is None:
                raise ConfigError(self.trouble)
            return self._made

    def _renew(self, *, quietly: bool = False) -> None:
        before = self._made
        self._tried_at = self._clock()
        try:
            self._made = self._make()
        except ConfigError as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                kept = "; what was read before stays in use" if before is not None else ""
                LOGGER.error("%s%s", self.trouble, kept)
            return
        if before is not None and not quietly:
            LOGGER.info("read anew: %s", ", ".join(file.name for file in self._files))
        self.trouble = ""

    def _look(self) -> _Look:
        look: list[tuple[int, int, int, int] | None] = []
        for file in self._files:
            try:
                found = file.stat()
            except OSError:
                look.append(None)
            else:
                look.append((found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino))
        return tuple(look)
