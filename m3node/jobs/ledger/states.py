"""The states that the ledger knows; the values are what ``m3node status --json`` prints."""

from __future__ import annotations

from enum import StrEnum


class SeriesState(StrEnum):
    """Where a received series stands."""

    RECEIVING = "receiving"
    ANSWERED = "answered"
    PURGED = "purged"


class RunState(StrEnum):
    """Where a generation stands; ``DONE`` and those after it are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


RUN_ENDS = frozenset({RunState.DONE, RunState.REJECTED, RunState.FAILED, RunState.SUPERSEDED, RunState.CANCELLED})
