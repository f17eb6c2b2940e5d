"""When a series is complete: after a quiet period in which nobody stores into it.

The series completes as a whole, and with it all its stacks: which stacks a series holds is known only when all of it
is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from m3node.settings import Caller, Settings


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a series is waited for.

    Attributes
    ----------
    quiet_seconds : float
        Since the later of the last arrival and the end of the last live association that stored into it last.
    seg_seconds : float
        From then on, for a SEG with a liver that references the series.
    """

    quiet_seconds: float
    seg_seconds: float


def patience(senders: Iterable[str], settings: Settings) -> Patience:
    """Return how long to wait for a series from these senders.

    Of several senders the most patient counts, an override being a sender's own patience and
    ``completeness.quiet_seconds`` everybody else's: a slow archive that fills up what a fast scanner began needs the
    archive's time. (A sender with an override shorter than the default therefore shortens the wait only alone.)

    Parameters
    ----------
    senders : iterable of str
        Calling AE titles; empty ones (files without a sender) count as having no override.
    settings : Settings
        ``listener.callers``, ``completeness`` and ``liver.use_received_seg`` count.
    """
    known = {caller.ae_title: caller for caller in settings.listener.callers}
    default = settings.completeness.quiet_seconds
    callers = [known.get(sender) for sender in senders] or [None]
    quiet = max(_quiet(caller, default) for caller in callers)
    seg = max(caller.wait_for_seg_seconds if caller is not None else 0.0 for caller in callers)
    return Patience(quiet, seg if settings.liver.use_received_seg else 0.0)


def _quiet(caller: Caller | None, default: float) -> float:
    return default if caller is None or caller.quiet_seconds is None else caller.quiet_seconds


@dataclass(slots=True)
class Stillness:
    """Since when nothing happens to a series; all times are seconds of one monotonic clock.

    Attributes
    ----------
    active_at : float
        Last arrival, or last time that a live association was seen whose newest instance is the series'.
    """

    active_at: float

    def touch(self, now: float) -> None:
        """Something happens."""
        self.active_at = max(self.active_at, now)

    def complete(self, now: float, wait: Patience, *, has_seg: bool) -> bool:
        """Whether the series is complete: quiet for long enough, and a SEG is there or no longer waited for."""
        quiet = now - self.active_at
        return quiet >= wait.quiet_seconds + (0.0 if has_seg else wait.seg_seconds)
