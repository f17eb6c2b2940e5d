"""How often sending an entry was begun and not ended: what takes the process down each time is not tried for ever.

``<name>.starts`` beside the entry's file, a line a start, written before the attempt and removed behind it, however
that ends; what remains was left by attempts that the process did not outlive. A process that was killed from outside
counts, too, since nobody can tell the two apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m3node.delivery.outbox import Box


def starts_left(box: Box, name: str) -> int:
    """Return how many attempts in a row ended with their process."""
    try:
        return box.starts(name).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


class Starts:
    """The attempts that one process is at; safe for several threads."""

    def __init__(self) -> None:
        self._at_hand: set[Path] = set()
        self._lock = threading.Lock()

    @contextmanager
    def attempt(self, box: Box, name: str) -> Iterator[None]:
        """Count a start of sending an entry; forget all of them when it comes to its end.

        Raises
        ------
        OSError
            The disk refuses: nothing of it was begun.
        """
        path = box.starts(name)
        # Not synchronised: what takes the process down leaves what the kernel has, and sending seldom takes a machine.
        with path.open("ab", buffering=0) as stream:
            stream.write(f"{time.time():.0f}\n".encode("ascii"))
        with self._lock:
            self._at_hand.add(path)
        try:
            yield
        finally:
            with self._lock:
                self._at_hand.discard(path)
            path.unlink(missing_ok=True)

    def take_back(self) -> None:
        """Forget the starts of the attempts at hand: the process is told to end, and leaves them."""
        with self._lock:
            for path in self._at_hand:
                path.unlink(missing_ok=True)
