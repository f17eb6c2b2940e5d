"""When a run has come to its end with all of its deliveries, so that nobody needs its files any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from m3node.delivery.outbox import Box
from m3node.delivery.state import DeliveryState
from m3node.errors import DeliveryError, ResultError
from m3node.jobs.answer.record import RECORD, RunRecord, read_record
from m3node.jobs.ledger.files import read_entry
from m3node.jobs.ledger.rows import end_of
from m3node.jobs.ledger.states import RunState
from m3node.layout import DataLayout


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What became of a run.

    Attributes
    ----------
    record : RunRecord or None
        None when it has not ended, or when its record is damaged.
    at : float or None
        When it and its deliveries were over, seconds since the epoch. None while something of it is to be done, or was
        given up in a way that a person may want to undo: a dead letter keeps what it was made of.
    """

    record: RunRecord | None
    at: float | None


def boxes(layout: DataLayout) -> tuple[Box, ...]:
    """Return the outbox's folders, those of former destinations too."""
    return tuple(Box(path) for path in sorted(layout.outbox.iterdir()) if path.is_dir())


def end_of_run(folder: Path, outbox: Collection[Box]) -> RunEnd:
    """Read when a run was over.

    Parameters
    ----------
    folder : Path
        The run's folder.
    outbox : collection of Box
        From `boxes`.

    Raises
    ------
    OSError
        The disk refuses.
    """
    try:
        record = read_record(folder)
    except ResultError:
        return RunEnd(None, None)
    if record is None:
        return RunEnd(None, None)
    at: float | None = record.finished_at or (folder / RECORD).stat().st_mtime
    for item in record.objects:
        for box in outbox:
            ended = _end_of_delivery(box, f"{folder.name}.{item.kind.value}")
            at = None if at is None or ended is None else max(at, ended)
    return RunEnd(record, at)


def _end_of_delivery(box: Box, name: str) -> float | None:
    """When a delivery was over: 0 when there is none (any more), None while it is not."""
    if box.file(name).exists():
        return None
    for folder, filed in ((box.sent, "sent"), (box.aside, "aside")):
        try:
            entry = read_entry(folder / f"{name}.json", filed)
        except FileNotFoundError:
            continue
        except DeliveryError:
            return None
        return None if entry.state is DeliveryState.DEAD else entry.finished_at
    # A dead letter that a person asked back meanwhile waits again.
    return None if box.file(name).exists() else 0.0


def ends_of_series(runs: Iterable[RunEnd]) -> float | None:
    """Return when all runs of a series were over; None while one is not, or while the last word on it is a failure.

    A failed run asks for help, and its message says that the input is kept. What a newer generation has answered, an
    older one needs no more.
    """
    ended = list(runs)
    superseded = {run.record.supersedes for run in ended if run.record is not None}
    at = 0.0
    for run in ended:
        if run.record is None or run.at is None:
            return None
        if end_of(run.record) is RunState.FAILED and run.record.manifest_key not in superseded:
            return None
        at = max(at, run.at)
    return at
