"""How many instances a minute: of one caller, and of all.

A bucket of tokens each, which holds those of a minute. Whoever finds it empty is answered later, when his token will
have come; so a sender that does not know of the limit is slowed down to it and loses nothing. Only who would wait for
long, because too many wait already, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_PAUSE = 10.0
"""Seconds that an instance is held back at most; senders give up on an answer after 30 to 60."""

_MINUTE = 60.0


class Bucket:
    """Tokens that come back at an even rate.

    Parameters
    ----------
    per_minute : int
        How many come back in a minute, and how many there are at most.
    now : float
        Seconds of a clock that does not jump.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._most = float(per_minute)
        self._per_second = per_minute / _MINUTE
        self._tokens = self._most
        self._at = now

    def pause(self, now: float) -> float:
        """In how many seconds there will be a token for one more."""
        self._refill(now)
        return max(0.0, (1.0 - self._tokens) / self._per_second)

    def take(self, now: float) -> None:
        """Take a token; one that is still to come, when there is none."""
        self._refill(now)
        self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        self._tokens = min(self._most, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = max(self._at, now)


@dataclass(frozen=True, slots=True)
class Turn:
    """When an instance may be taken in.

    Attributes
    ----------
    seconds : float or None
        How long to hold it back; None to refuse it.
    setting : str
        The limit that makes it wait, and its value; empty when none does.
    """

    seconds: float | None
    setting: str = ""


class Rates:
    """The limits on instances a minute, counted by the acceptor over all receivers.

    Parameters
    ----------
    of_all : int
        From all callers; 0 for no limit.
    of_title : mapping of str to int
        By AE title, where it has a limit of its own.
    now : float
        Seconds of a clock that does not jump.
    """

    def __init__(self, of_all: int, of_title: Mapping[str, int], now: float) -> None:
        self._all = (Bucket(of_all, now), f"listener.instances_per_minute = {of_all}") if of_all else None
        self._of_title = {
            title: (Bucket(most, now), f"listener.callers.instances_per_minute = {most}")
            for title, most in of_title.items()
        }

    def turn(self, title: str, now: float) -> Turn:
        """Give the next instance of a caller its turn."""
        limits = [limit for limit in (self._of_title.get(title), self._all) if limit is not None]
        longest = max(((bucket.pause(now), setting) for bucket, setting in limits), default=(0.0, ""))
        if longest[0] > LONGEST_PAUSE:
            return Turn(None, longest[1])
        for bucket, _ in limits:
            bucket.take(now)
        return Turn(*longest) if longest[0] else Turn(0.0)
