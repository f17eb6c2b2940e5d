"""Which destinations cannot be reached: what waits for one of them does not each wait for a time-out of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from m3node.delivery.back_off import back_off
from m3node.settings import DeliverySettings

UNANSWERED_LIMIT = 3
"""So many objects in a row without an answer: it is the peer that does not answer, and not the objects."""


@dataclass(slots=True)
class _Line:
    """A destination that was not reached, or did not answer, last time."""

    failures: int = 0
    unanswered: int = 0
    until: float = 0.0
    why: str = ""
    probe: str = ""


@dataclass(slots=True)
class Reach:
    """What this process knows of its destinations; safe for several threads.

    A destination is down from a failed connection, or from three objects in a row without an answer, until something
    is answered. While it is down, one entry, the probe, tries it at growing distances, and the others wait for that.

    Parameters
    ----------
    delivery : DeliverySettings
        Back-off.
    """

    delivery: DeliverySettings
    _lines: dict[str, _Line] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, destination: str) -> None:
        """Note an answer: the destination is up."""
        with self._lock:
            self._lines.pop(destination, None)

    def unanswered(self, destination: str, probe: str, why: str) -> None:
        """Note an object that was offered and got no answer."""
        with self._lock:
            line = self._lines.setdefault(destination, _Line())
            line.unanswered += 1
            # It took the object, so it is there: others are tried as well, before it counts as down again.
            line.why = ""
            if line.unanswered >= UNANSWERED_LIMIT:
                self._down(line, probe, why)

    def unreachable(self, destination: str, probe: str, why: str) -> float:
        """Note that there was no connection for the entry ``probe``; return the seconds until it tries again."""
        with self._lock:
            line = self._lines.setdefault(destination, _Line())
            self._down(line, probe, why)
            return line.until - time.monotonic()

    def why(self, destination: str) -> str:
        """Return why a destination is down; empty while it is up."""
        with self._lock:
            line = self._lines.get(destination)
            return line.why if line is not None else ""

    def dismiss(self, destination: str) -> None:
        """Let whoever comes next be the probe: the one that was has been cancelled."""
        with self._lock:
            if destination in self._lines:
                self._lines[destination].probe = ""

    def closed_to(self, destination: str, name: str) -> bool:
        """Whether an entry has to wait for the destination to be up again: it is down, and another one probes it."""
        with self._lock:
            line = self._lines.get(destination)
            if line is None or not line.why or line.probe in ("", name):
                return False
            # A probe whose time is long over does not come any more: whoever comes takes its place.
            return time.monotonic() < line.until + self.delivery.retry_max_seconds

    def is_probe(self, destination: str, name: str) -> bool:
        """Whether an entry is the one that tries a destination that is down."""
        with self._lock:
            line = self._lines.get(destination)
            return line is not None and bool(line.why) and line.probe == name

    def _down(self, line: _Line, probe: str, why: str) -> None:
        line.until = time.monotonic() + back_off(line.failures, self.delivery)
        line.failures += 1
        # The next try is again of three objects: the one that is tried first may be what the peer chokes on.
        line.unanswered = 0
        line.why, line.probe = why, probe
