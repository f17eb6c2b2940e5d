"""What the clerk removes: result objects, records of deliveries, reports, rows; and what it says of the disk.

Nothing is sent or computed again for it: that a run is over is said by its ``run.json``, which stays, and only what
waits in the outbox is sent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from m3node.delivery.outbox import Box
from m3node.delivery.state import DeliveryState
from m3node.disk import Watermark
from m3node.durable import remove_parts
from m3node.errors import DeliveryError
from m3node.intake.receive.commitment import forget_reports
from m3node.jobs.answer.record import RECORD
from m3node.jobs.answer.steps import OVERLAY
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.keeping.ends import boxes, end_of_run
from m3node.jobs.ledger.files import read_entry
from m3node.jobs.ledger.notes import Ledger
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.results.store import ATTENTION_FILE, MASKS_FILE
from m3node.settings import Settings

_log = logging.getLogger(__name__)

DAY = 86_400.0
THOROUGH_SECONDS = 3600.0
"""How often it looks at every run and every delivery."""

UNFINISHED_SECONDS = 3600.0
"""No file takes so long to be written."""

REMOVABLE = frozenset({*(kind.file_name for kind in ObjectKind), MASKS_FILE, ATTENTION_FILE, OVERLAY})
"""Of a run's folder; ``findings.json`` and ``run.json`` stay."""


class Housekeeping:
    """Keeps a node's house; one in a node.

    Parameters
    ----------
    settings : Settings
        ``retention`` and ``disk.warn_free_mb`` count.
    ledger : Ledger
        Forgets the rows of deliveries that are over for long.
    dispatcher : Dispatcher
        To the engine, which forgets those of ended jobs.
    low : Watermark, optional
        Below it results go without waiting for their time; ``disk.warn_free_mb`` when left out.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        dispatcher: Dispatcher,
        *,
        low: Watermark | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = DataLayout(settings.data_dir)
        self._keep_results = settings.retention.results_days * DAY
        self._keep_rows = settings.retention.rows_days * DAY
        self._removes = bool(self._keep_results or settings.retention.received_hours)
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._low = low or Watermark(self._layout.root, settings.disk.warn_free_mb)
        self._clock = clock
        self._due = 0.0

    def keep_house(self) -> None:
        """Do what is due; called every minute, and cheap when nothing is.

        Raises
        ------
        DatabaseError
            The database is away; the next call goes on.
        OSError
            The disk refuses; the next call goes on.
        """
        low = self._tell_of_room()
        now = self._clock()
        # A clock that was set back must not put it off until it is there again.
        thorough = not self._due - THOROUGH_SECONDS <= now < self._due
        if not (thorough or low):
            return
        if self._keep_results:
            self._remove_results(now)
        if not thorough:
            return
        remove_unfinished(self._layout)
        if self._keep_rows:
            before = now - self._keep_rows
            remove_filed(self._layout, before)
            forget_reports(self._layout, before)
            self._ledger.forget_rows(before)
            self._dispatcher.forget(before)
        self._due = now + THOROUGH_SECONDS

    def _tell_of_room(self) -> bool:
        crossed = self._low.crossed()
        if crossed:
            does = "what [retention] would remove later goes now" if self._removes else "[retention] removes nothing"
            _log.warning("less than %g MB are free (disk.warn_free_mb): make room; %s", self._low.mb, does)
        elif crossed is False:
            _log.info("there is room on the disk again")
        return self._low.below()

    def _remove_results(self, now: float) -> None:
        outbox = boxes(self._layout)
        found: list[tuple[float, str, list[Path]]] = []
        for folder, files in _with_results(self._layout.results):
            end = end_of_run(folder, outbox)
            if end.at is not None:
                found.append((end.at, folder.name, files))
        count = 0
        for at, run, files in sorted(found):
            if now < at + self._keep_results and not self._low.below(now=True):
                break
            for path in files:
                path.unlink(missing_ok=True)
            _log.debug("results of run %s removed; findings.json and run.json stay", run)
            count += 1
        if count:
            _log.info("results of %d runs removed; their findings.json and run.json stay", count)


def _with_results(results: Path) -> Iterator[tuple[Path, list[Path]]]:
    """The folders of runs that hold something that may be removed, and what."""
    with os.scandir(results) as runs:
        for run in runs:
            if not run.is_dir():
                continue
            with os.scandir(run.path) as entries:
                files = [Path(entry.path) for entry in entries if entry.name in REMOVABLE]
            if files:
                yield Path(run.path), files


def remove_unfinished(layout: DataLayout, *, older_than: float = UNFINISHED_SECONDS) -> int:
    """Remove what processes that were killed left half written (`m3node.durable`); nobody can see it as a file of ours.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    older_than : float
        Seconds since it was last written to; a young one may be somebody's work.

    Returns
    -------
    int
        How many.
    """
    latest = time.time() - older_than
    folders = [layout.manifests, layout.commitments, *layout.results.iterdir(), *layout.outbox.glob("**/")]
    removed = sum(remove_parts(folder, latest) for folder in folders)
    if removed:
        _log.info("removed %d unfinished files of processes that are gone", removed)
    return removed


def remove_filed(layout: DataLayout, before: float) -> int:
    """Remove the records of deliveries that were sent or cancelled before a time (seconds since the epoch).

    The ledger forgets the same ones, so that one that is made anew from the files says the same. Dead letters stay.

    Returns
    -------
    int
        How many.
    """
    removed = 0
    for box in boxes(layout):
        for path, filed in _filed_before(box, before):
            try:
                entry = read_entry(path, filed)
            except (DeliveryError, FileNotFoundError):
                continue  # a person's to look at, or moved back up by one just now
            if entry.state is DeliveryState.DEAD or entry.finished_at >= before:
                continue
            # Both would make it wait again: a run that is not over queues what is not there, and a kill may have left
            # its file among the waiting ones.
            if (layout.results / entry.run / RECORD).exists() and not box.file(entry.name).exists():
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def _filed_before(box: Box, before: float) -> Iterator[tuple[Path, str]]:
    for folder in (box.sent, box.aside):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith(".") and _is_older(entry, before):
                    yield Path(entry.path), folder.name


def _is_older(entry: os.DirEntry[str], before: float) -> bool:
    try:
        return entry.stat().st_mtime < before
    except FileNotFoundError:
        return False  # moved since the folder was read
