"""Where an object stands on its way to one destination."""

from __future__ import annotations

from enum import StrEnum


class DeliveryState(StrEnum):
    """Where an object stands on its way to one destination; ``SENT`` and those after it are ends.

    ``UNKNOWN``: the peer did not answer, so the same bytes go again. ``STORED``: the peer has it, and its commitment is
    awaited. ``SENT``: the peer has it and commits to nothing; ``CONFIRMED``: it has committed. ``DEAD``: refused, or
    given up. ``CANCELLED``: a newer generation or a person took it back.
    """

    WAITING = "waiting"
    RETRYING = "retrying"
    UNKNOWN = "unknown"
    STORED = "stored"
    SENT = "sent"
    CONFIRMED = "confirmed"
    DEAD = "dead"
    CANCELLED = "cancelled"


ENDS = frozenset({DeliveryState.SENT, DeliveryState.CONFIRMED, DeliveryState.DEAD, DeliveryState.CANCELLED})
"""States that nothing follows by itself."""
