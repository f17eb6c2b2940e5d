"""Settings of how the node runs: jobs, retention, disk, log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from m3node.settings.types import NotNegative, Positive, Section


class JobSettings(Section):
    """The durable jobs.

    Attributes
    ----------
    slots : int
        Worker processes of ``m3node serve``; one per GPU. Workers of other machines come besides.
    poison_limit : int
        A step that took its worker down so often, or an object whose sending took ``deliver`` down, is set aside with
        its reason.
    drain_seconds : float
        After SIGTERM, associations and a running step may finish for so long; then the step is abandoned and run
        again later.
    retry_seconds : float
        Pause after trouble with disk or memory before the same job is taken up again.
    """

    slots: Annotated[int, Field(ge=1, le=64)] = 1
    poison_limit: Annotated[int, Field(ge=1)] = 3
    drain_seconds: NotNegative = 60.0
    retry_seconds: Positive = 10.0


class RetentionSettings(Section):
    """When what is kept may go; 0 keeps it for ever.

    Attributes
    ----------
    received_hours : float
        Received pixels of a series, after its results are confirmed (or delivered, where a destination does not
        confirm; or after its recorded reason, where there are none). Failed runs and dead letters keep theirs.
    results_days : float
        Result objects, masks and pictures; ``findings.json`` and ``run.json`` stay.
    rows_days : float
        The engine's rows of finished jobs and deliveries, and what is kept of sent objects: the ledger's rows, their
        entries in ``outbox``, the reports in ``commitments``. Instance rows stay.
    """

    received_hours: NotNegative = 0.0
    results_days: NotNegative = 0.0
    rows_days: NotNegative = 30.0


class DiskSettings(Section):
    """Two watermarks of free space on the data folder's disk; 0 switches one off.

    Attributes
    ----------
    warn_free_mb : float
        Below it, a warning, and what retention will remove one day is removed now.
    refuse_free_mb : float
        Below it, new associations are rejected as transient (local limit exceeded) and stores of open ones answered
        0xA700, so that nothing is half stored.
    """

    warn_free_mb: NotNegative = 2_000.0
    refuse_free_mb: NotNegative = 500.0


class LogSettings(Section):
    """Logging, to standard error and, where a folder is set, to files of bounded size.

    Attributes
    ----------
    format : str
        ``text`` for people, ``json`` for a collector: one object a line.
    folder : Path or None
        Gets a file for each process, ``<role>.log``; off when not set.
    max_mb, files
        A file is put aside as ``<role>.log.1`` when it is so large (10^6 bytes), and so many of them are kept.
    """

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"
    folder: Path | None = None
    max_mb: Positive = 20.0
    files: Annotated[int, Field(ge=1, le=1000)] = 5
