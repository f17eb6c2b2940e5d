"""Which series' received pixels may go: those whose answer has arrived, after a time of grace.

The keeper asks, and removes them: it alone writes the index, which remembers what was there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from m3node.disk import Watermark
from m3node.intake.keeper.purging import Held
from m3node.jobs.keeping.ends import RunEnd, boxes, end_of_run, ends_of_series
from m3node.layout import DataLayout
from m3node.rejection import Reason
from m3node.settings import Settings

_log = logging.getLogger(__name__)

EARLY_SECONDS = 3600.0
"""What has no run of its own stays so long even on a full disk: a SEG may come before the images that it is about."""


def over(held: Sequence[Held], runs: Mapping[str, float | None]) -> dict[str, float]:
    """Say since when each series is not needed any more.

    Parameters
    ----------
    held : sequence of Held
        The series that lie in the spool and are answered.
    runs : mapping of str to float or None
        When the runs of a series were over, None while they are not; without an entry it has none.

    Returns
    -------
    dict of str to float
        Seconds since the epoch; a series that is needed is not in it. One without runs (a SEG, a dose report, our own
        objects, what was not fit) is over with the series of its study that have some.
    """
    of_study: dict[str, list[float | None]] = defaultdict(list)
    for item in held:
        if item.series in runs:
            for study in item.studies:
                of_study[study].append(runs[item.series])
    since: dict[str, float] = {}
    for item in held:
        ends = (
            [runs[item.series]] if item.series in runs else [end for study in item.studies for end in of_study[study]]
        )
        known = [end for end in ends if end is not None]
        if len(known) == len(ends):
            since[item.series] = max(item.answered_at, *known, 0.0)
    return since


class Retention:
    """Says what may go; an `m3node.intake.keeper.purging.Disposable`.

    Parameters
    ----------
    settings : Settings
        ``retention.received_hours`` and ``disk.warn_free_mb`` count.
    low : Watermark, optional
        Below it everything goes that is over, oldest first, without grace; ``disk.warn_free_mb`` when left out.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self, settings: Settings, *, low: Watermark | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._layout = DataLayout(settings.data_dir)
        self._grace = settings.retention.received_hours * 3600.0
        self._low = low or Watermark(self._layout.root, settings.disk.warn_free_mb)
        self._clock = clock

    def __call__(self, held: Sequence[Held]) -> Iterator[str]:
        """Name series whose pixels may go now, oldest first."""
        if not self._grace:
            return
        now = self._clock()
        # A run is not over before its series was answered: while there is room, the young need no look at their files.
        soonest = now if self._low.below() else now - self._grace
        old = [item for item in held if item.answered_at <= soonest]
        young = frozenset(study for item in held if item.answered_at > soonest for study in item.studies)
        runs = self._runs(old)
        due = [item for item in old if item.series in runs or not (item.studies & young or self._failed(item.series))]
        since = over(due, runs)
        early = 0
        for series in sorted(since, key=lambda series: since[series]):
            if now < since[series] + self._grace:
                if series not in runs and now < since[series] + EARLY_SECONDS:
                    continue
                if not self._low.below(now=True):
                    break
                early += 1
            yield series
        if early:
            _log.warning("%d series were removed before their time (retention.received_hours): disk space", early)

    def _runs(self, held: Sequence[Held]) -> dict[str, float | None]:
        if not held:
            return {}  # asked every few seconds, and a node has many manifests
        outbox = boxes(self._layout)
        found: dict[str, list[RunEnd]] = defaultdict(list)
        for series, run in _runs_of(self._layout.manifests, {item.series for item in held}):
            end = end_of_run(self._layout.results / run, outbox)
            # 1.2.3.g1 may be of 1.2.3, and 1.2.3.4.g1 of 1.2.3 or of 1.2.3.4; not ended, it holds both.
            if end.record is None or end.record.series_instance_uid == series:
                found[series].append(end)
        return {series: ends_of_series(ends) for series, ends in found.items()}

    def _failed(self, series: str) -> bool:
        """Whether a series could not be judged, for no fault of its own."""
        digest = hashlib.sha256(f"{series}\0{Reason.FAILED.value}".encode()).hexdigest()
        return (self._layout.results / f"{series}.g0.{digest[:12]}").exists()


def _runs_of(manifests: Path, series: Collection[str]) -> Iterator[tuple[str, str]]:
    """The runs that may be of a series, by name: ``<series>[.<stack>].g<generation>``."""
    with os.scandir(manifests) as entries:
        for entry in entries:
            run, dot, _ = entry.name.rpartition(".json")
            label = run.rpartition(".g")[0]
            for candidate in (label, label.rpartition(".")[0]) if dot else ():
                if candidate in series:
                    yield candidate, run
