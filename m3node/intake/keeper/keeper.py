"""The keeper: follows what the receivers store, decides when a series is complete, and writes its manifests.

One process, and the only writer of the index and the manifests. It reads headers as instances arrive, off the
acknowledged path, so that a complete series never has to be read again to be sorted. What it knows can be lost at any
moment: at start it compares the spool with the index and goes on where the files end. A disk that refuses ends nothing:
what arrived waits and is taken in when that is possible again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m3node.audit.trail import AuditTrail
from m3node.errors import M3NodeError, ResultError
from m3node.intake.keeper.answering import Answering, Content, Record
from m3node.intake.keeper.completeness import patience
from m3node.intake.keeper.index import Index, SeriesRecord, Settled, series_files, spooled_series, stat_line
from m3node.intake.keeper.purging import Disposable, Held, none_of_them, purge
from m3node.intake.keeper.register import Register
from m3node.intake.keeper.transfers import Transfers
from m3node.intake.keeper.urgency import is_urgent
from m3node.intake.receive.association import ArrivalEvent, LeaseReader
from m3node.intake.series import sop_classes
from m3node.layout import DataLayout
from m3node.logs import correlated, describe
from m3node.settings import Settings

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY_SECONDS = 10.0
"""After the disk refused an answer."""
TROUBLE_SECONDS = 1.0
"""How long what arrived is left alone after the disk refused to note it."""
TURN_SECONDS = 0.5
"""How long series are answered, or removed, before the keeper looks again what has arrived and what is urgent."""
PURGE_SECONDS = 10.0
"""How often it asks whether pixels may go."""


@dataclass(slots=True)
class _Arrivals:
    """What has arrived of a series and is not in the index yet."""

    paths: dict[Path, None] = field(default_factory=dict)
    urgent: bool = False


class Keeper:
    """Keeps one data folder.

    Parameters
    ----------
    settings : Settings
        The tree.
    record : callable
        Records why a stack or an instance gets no results: stack, generation (0 for instances), digest, reason.
    content_digest : callable
        Digest of a file's decoded pixels, geometry and identity; raises ``InputRejected`` when it has none.
    disposable : callable
        Says which series' pixels may go (`m3node.intake.keeper.purging.Disposable`).
    clock : callable
        Monotonic seconds. Quiet is measured by it from when the keeper sees things, so that no change of the wall
        clock makes a series complete, and a restart gives senders their time again.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        record: Record,
        content_digest: Content,
        disposable: Disposable = none_of_them,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._layout = DataLayout(settings.data_dir.absolute())
        self._layout.create()
        self._index = Index(self._layout.index)
        self._leases = LeaseReader(self._layout.associations)
        self._register = Register(
            self._layout,
            self._index,
            late_seg_opens=settings.completeness.late_seg_makes_generation,
            clock=clock,
        )
        self._answering = Answering(self._layout, settings, self._index, record=record, content_digest=content_digest)
        self._transfers = Transfers(self._layout, AuditTrail(settings, process="keeper"))
        self._disposable = disposable
        self._clock = clock
        self._arrivals: dict[str, _Arrivals] = {}
        self._troubled_until: float | None = None
        self._going: Iterator[str] | None = None
        self._stirred: set[str] = set()
        self._purge_due = clock()

    @property
    def waiting(self) -> frozenset[str]:
        """The series with something unanswered."""
        return frozenset(self._register) | frozenset(self._arrivals)

    def rescan(self, stop: threading.Event | None = None) -> None:
        """Compare the spool with the index, and read what the index does not know."""
        for series, folders in spooled_series(self._layout.spool).items():
            if stop is not None and stop.is_set():
                return
            files = series_files(folders)
            if not files:
                continue
            self._register.folders[series] = set(folders)
            settled = self._index.settled(series)
            if settled is None or settled.files != len(files):
                _log.info("series %s: %d files in the spool, not all of them answered", series, len(files))
                self._arrivals[series] = _Arrivals()
                self._take_in_arrivals()

    def step(self) -> None:
        """Take in what has arrived, answer the series that are complete, and remove what is not needed any more."""
        self.follow()
        self._answer_complete()
        self._remove_disposable()

    def follow(self) -> None:
        """Take in what has arrived, and record the associations that have ended."""
        try:
            self._follow_leases()
        except OSError as error:
            self._refused_by_disk(error)

    def _follow_leases(self) -> None:
        for event in self._leases.poll():
            if isinstance(event, ArrivalEvent):
                self._transfers.arrived(event)
                arrivals = self._arrivals.setdefault(event.series, _Arrivals())
                arrivals.paths[self._layout.root / event.path] = None
                arrivals.urgent = arrivals.urgent or event.urgent
        self._take_in_arrivals()
        now = self._clock()
        for lease in self._leases.live(time.time()):
            if lease.last_series in self._register:
                self._register[lease.last_series].stillness.touch(now)
        if self._arrivals:
            return  # a lease says more than the spool: it stays until all of it is in the index
        for lease in self._leases.finished(time.time()):
            self._transfers.ended(lease)
            lease.path.unlink(missing_ok=True)

    def _take_in_arrivals(self) -> None:
        if self._troubled_until is not None and self._clock() < self._troubled_until:
            return
        refused = False
        for series in list(self._arrivals):
            try:
                self._arrived(series, self._arrivals[series])
            except OSError as error:
                self._refused_by_disk(error)
                refused = True
            else:
                del self._arrivals[series]
        if self._troubled_until is not None and not refused:
            self._troubled_until = None
            _log.warning("the disk takes notes again: what had arrived is in the index")

    def _refused_by_disk(self, error: OSError) -> None:
        if self._troubled_until is None:
            _log.error("the disk refuses (%s): what arrived is kept, and noted when that is possible", _words(error))
        self._troubled_until = self._clock() + TROUBLE_SECONDS

    def _arrived(self, series: str, arrivals: _Arrivals) -> None:
        folders = self._register.folders.setdefault(series, set())
        folders.update(path.parent for path in arrivals.paths)
        self._stirred.update(_studies(folders))
        is_open = series in self._register
        if not is_open and arrivals.paths and self._is_answered(series, folders):
            return
        state = self._register.open(series)
        state.stillness.touch(self._clock())
        if arrivals.urgent and not state.record.urgent:
            self._register.note(series, stat_line())
        if is_open:
            self._register.take_in(series, arrivals.paths)

    def _is_answered(self, series: str, folders: set[Path]) -> bool:
        """Whether only duplicates arrived, of what has its answer.

        What was not fit is judged again when somebody sends it again: the settings may be others now.
        """
        settled = self._index.settled(series)
        return settled is not None and not settled.unfit and settled.files == len(series_files(folders))

    def _answer_complete(self) -> None:
        """Answer what is complete, urgent series first, for a while."""
        begun = self._clock()
        complete = [series for series in self._register if self._is_complete(series, begun)]
        for series in sorted(complete, key=lambda series: not self._is_urgent(series)):
            studies = ",".join(sorted(_studies(self._register.folders.get(series, ()))))
            with correlated(study=studies, series=series):
                self._answer(series)
            if self._clock() - begun > TURN_SECONDS:
                return

    def _is_complete(self, series: str, now: float) -> bool:
        if series in self._arrivals:
            return False
        state = self._register[series]
        record = state.record
        wait = patience({header.sender for header in record.headers.values()}, self._settings)
        return state.stillness.complete(now, wait, has_seg=bool(record.segs) or not has_ct(record))

    def _is_urgent(self, series: str) -> bool:
        record = self._register[series].record
        return is_urgent(record.headers.values(), self._settings, asked=record.urgent)

    def _answer(self, series: str) -> None:
        state = self._register[series]
        self._stirred.update(_studies(self._register.folders.get(series, ())))
        try:
            if not self._register.read_again(series):
                state.stillness.touch(self._clock() + RETRY_SECONDS)
                return
            self._register.close(series, self._judged(series, state.record))
        except (OSError, ResultError) as error:
            if not state.put_off:
                _log.error("series %s waits: %s; trying again every %g s", series, error, RETRY_SECONDS)
            state.put_off = True
            state.stillness.touch(self._clock() + RETRY_SECONDS)

    def _judged(self, series: str, record: SeriesRecord) -> Settled:
        try:
            return self._answering.answer(series, record)
        except (OSError, ResultError):
            raise
        except Exception as error:  # noqa: BLE001 - one series must not keep all others from being answered
            what = str(error) if isinstance(error, M3NodeError) else describe(error)
            _log.critical("series %s cannot be judged: %s", series, what)
            self._answering.fail(series, what)
            return Settled(record.files, unfit=True, purged=bool(record.purged))

    def _remove_disposable(self) -> None:
        """Remove pixels that are not needed any more, for a while.

        What was said of a study does not count any more once something of it has arrived or was answered: a new
        generation needs the pixels, those of SEGs too. It is asked about again the next time.
        """
        begun = self._clock()
        if self._going is None and begun < self._purge_due:
            return
        try:
            if self._going is None:
                self._stirred.clear()
                self._going = iter(self._disposable(self._held()))
            for series in self._going:
                studies = _studies(self._register.folders.get(series, ()))
                if not self._is_busy(series) and self._stirred.isdisjoint(studies):
                    self._purge(series)
                if self._clock() - begun > TURN_SECONDS:
                    return
        except OSError as error:
            _log.error("received files cannot be removed (%s); trying again", _words(error))
        self._going = None
        self._purge_due = self._clock() + PURGE_SECONDS

    def _held(self) -> list[Held]:
        return [
            Held(series, _studies(folders), math.inf if self._is_busy(series) else self._index.changed_at(series))
            for series, folders in self._register.folders.items()
        ]

    def _is_busy(self, series: str) -> bool:
        return series in self._register or series in self._arrivals

    def _purge(self, series: str) -> None:
        folders = self._register.folders.get(series, set())
        if not purge(series, folders, self._layout.spool, self._index):
            self._arrivals[series] = _Arrivals()
        else:
            self._register.folders.pop(series, None)


def _words(error: OSError) -> str:
    """Say what the disk refused, and of which file where that is known: a disk may refuse one only."""
    return f"{error.strerror}: {error.filename}" if error.filename else f"{error.strerror}"


def _studies(folders: Iterable[Path]) -> frozenset[str]:
    """Study Instance UIDs under which a series' folders lie."""
    return frozenset(folder.parent.name for folder in folders)


def has_ct(record: SeriesRecord) -> bool:
    """Whether a series holds anything that a SEG could refer to."""
    return any(header.sop_class_uid in sop_classes.CT for header in record.headers.values())


def run_keeper(
    settings: Settings,
    stop: threading.Event,
    *,
    record: Record,
    content_digest: Content,
    disposable: Disposable = none_of_them,
) -> None:
    """Keep the data folder until ``stop`` is set.

    Parameters
    ----------
    settings : Settings
        The tree.
    stop : threading.Event
        Ends it between two steps.
    record, content_digest, disposable : callable
        As for `Keeper`.
    """
    keeper = Keeper(settings, record=record, content_digest=content_digest, disposable=disposable)
    keeper.rescan(stop)
    while not stop.is_set():
        keeper.step()
        stop.wait(POLL_SECONDS)
    keeper.follow()  # the receivers have ended before: the node may be down for long, and the audit trail is whole
