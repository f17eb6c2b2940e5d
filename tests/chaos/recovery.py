"""How long a role takes from its death to its next progress, where there was something for it to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Gauge:
    """What a role does.

    Attributes
    ----------
    done : callable
        A figure that grows with every piece of work.
    left : callable
        Whether there is something for it, or for another one of its kind, to do.
    busy : callable
        Whether it is at work just now.
    """

    done: Callable[[], float]
    left: Callable[[], bool]
    busy: Callable[[], bool]


@dataclass
class _Watch:
    since: float
    done: float


class Recovery(threading.Thread):
    """Watches the gauges of roles that were killed.

    Parameters
    ----------
    gauges : dict of str to Gauge
        By role.
    """

    def __init__(self, gauges: dict[str, Gauge]) -> None:
        super().__init__(name="recovery", daemon=True)
        self.seconds: dict[str, list[float]] = {role: [] for role in gauges}
        self.gauges = gauges
        self._watched: dict[str, _Watch] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()

    def killed(self, role: str) -> None:
        """Begin to count; a second death before any progress begins anew."""
        gauge = self.gauges[role]
        if not gauge.left():
            return
        with self._lock:
            self._watched[role] = _Watch(time.monotonic(), gauge.done())

    def run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with self._lock:
                watched = dict(self._watched)
            for role, watch in watched.items():
                gauge = self.gauges[role]
                if gauge.done() > watch.done:
                    self.seconds[role].append(time.monotonic() - watch.since)
                elif gauge.left():
                    continue
                with self._lock:
                    if self._watched.get(role) is watch:
                        del self._watched[role]

    def stop(self) -> None:
        """Count no more."""
        self._over.set()
        self.join()
