"""Equal security alerts within a minute, written as two messages at most: the first at once, the others counted.

Who is refused comes again, a thousand times a minute if he likes and under ever new titles for weeks, and must not fill
the disk with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from m3node.audit.events import Node, SecurityAlert

WINDOW_SECONDS = 60.0
MOST = 200
"""Different alerts that are told apart when they come all at once; what comes beyond is counted together, by kind."""
ANOTHER_SECONDS = 6.0
"""How often another one may be told apart then: ten a minute are 150 MB a day, where all receivers write so much."""

OTHERS = "further callers were refused, too many to name each"


@dataclass(slots=True)
class _Window:
    opened: float
    more: int = 0


class Coalescing:
    """Decides what is written of the alerts of one process; its caller holds a lock.

    Times are of a clock that does not jump.
    """

    def __init__(self) -> None:
        self._windows: dict[SecurityAlert, _Window] = {}
        self._left = float(MOST)
        self._left_at = 0.0

    def admit(self, alert: SecurityAlert, now: float) -> SecurityAlert | None:
        """Return what is to be written of an alert at once; None when it is counted for later."""
        key = alert
        if alert not in self._windows and not self._may_be_another(now):
            key = replace(alert, peer=Node("", ""), reason=OTHERS)
        window = self._windows.get(key)
        if window is not None:
            window.more += 1
            return None
        self._windows[key] = _Window(now)
        return key

    def _may_be_another(self, now: float) -> bool:
        self._left = min(float(MOST), self._left + (now - self._left_at) / ANOTHER_SECONDS)
        self._left_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def due(self, now: float, *, all_of_them: bool = False) -> Iterator[tuple[SecurityAlert, int]]:
        """Return the alerts whose minute is over with their counts, where they came again, and forget them."""
        for alert, window in list(self._windows.items()):
            if all_of_them or now - window.opened >= WINDOW_SECONDS:
                del self._windows[alert]
                if window.more:
                    yield alert, window.more

    @property
    def next_due(self) -> float | None:
        """When the next count is to be written; None when nothing is counted."""
        counted = [window.opened for window in self._windows.values() if window.more]
        return min(counted) + WINDOW_SECONDS if counted else None
