"""The keeper: follows what the receivers store, decides when a series is complete, and writes its manifests.

One process, and the only writer of the index and the manifests. It reads headers as instances arrive, off the
acknowledged path, so that a complete series never has to be read again to be sorted. What it knows can be lost at any
moment: at start it compares the spool with the index and goes on where the files end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3node.errors import InputRejected, M3NodeError, ResultError
from m3node.identity import DEVICE_UID
from m3node.intake.keeper.answering import Answering, Content, Record
from m3node.intake.keeper.completeness import Stillness, patience
from m3node.intake.keeper.index import (
    Index,
    SeriesRecord,
    Settled,
    apply,
    header_line,
    own_line,
    refused_line,
    seg_line,
    series_files,
    settled_line,
    spooled_series,
)
from m3node.intake.keeper.own_objects import OwnObjects
from m3node.intake.receive.association import ArrivalEvent, LeaseReader
from m3node.intake.series import sop_classes
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.reading import read_header
from m3node.intake.series.seg_reference import SegReference, read_seg_reference
from m3node.layout import DataLayout
from m3node.logs import describe
from m3node.rejection import Reason, Rejection
from m3node.settings import Settings

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY_SECONDS = 10.0
"""After trouble with the disk."""
READ_TRIES = 5
"""How often a file is read that the disk refuses, before its series is judged without it."""


@dataclass(slots=True)
class _OpenSeries:
    """A series with something unanswered, and how often the disk refused which of its files."""

    record: SeriesRecord
    stillness: Stillness
    unread: dict[Path, int] = field(default_factory=dict)


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._layout = DataLayout(settings.data_dir.absolute())
        self._layout.create()
        self._index = Index(self._layout.index)
        self._leases = LeaseReader(self._layout.associations)
        self._own = OwnObjects(self._layout)
        self._answering = Answering(self._layout, settings, self._index, record, content_digest)
        self._clock = clock
        self._open: dict[str, _OpenSeries] = {}
        self._folders: dict[str, set[Path]] = {}

    @property
    def waiting(self) -> frozenset[str]:
        """The series with something unanswered."""
        return frozenset(self._open)

    def rescan(self, stop: threading.Event | None = None) -> None:
        """Compare the spool with the index, and read what the index does not know."""
        for series, folders in spooled_series(self._layout.spool).items():
            if stop is not None and stop.is_set():
                return
            self._folders[series] = set(folders)
            files = series_files(folders)
            settled = self._index.settled(series)
            if settled is not None and settled.files == len(files):
                continue
            state = self._opened(series)
            unknown = [path for path in files if not state.record.knows(self._relative(path))]
            if unknown:
                _log.info("series %s: %d files in the spool are not in the index", series, len(unknown))
            for path in unknown:
                self._take_in(series, path)

    def step(self) -> None:
        """Take in what has arrived, and answer the series that are complete."""
        arrived: dict[str, list[Path]] = {}
        for event in self._leases.poll():
            if isinstance(event, ArrivalEvent):
                arrived.setdefault(event.series, []).append(self._layout.root / event.path)
        for series, paths in arrived.items():
            self._arrived(series, paths)
        now = self._clock()
        for lease in self._leases.live(time.time()):
            if lease.last_series in self._open:
                self._open[lease.last_series].stillness.touch(now)
        for lease in self._leases.finished(time.time()):
            lease.path.unlink(missing_ok=True)
        for series in list(self._open):
            self._answer_when_complete(series, self._clock())

    def _arrived(self, series: str, paths: list[Path]) -> None:
        folders = self._folders.setdefault(series, set())
        folders.update(path.parent for path in paths)
        if series not in self._open and self._is_answered(series, folders):
            return
        state = self._opened(series)
        state.stillness.touch(self._clock())
        for path in paths:
            if not state.record.knows(self._relative(path)):
                self._take_in(series, path)

    def _is_answered(self, series: str, folders: set[Path]) -> bool:
        """Whether only duplicates arrived, of what has its answer.

        What was not fit is judged again when somebody sends it again: the settings may be others now.
        """
        settled = self._index.settled(series)
        return settled is not None and not settled.unfit and settled.files == len(series_files(folders))

    def _opened(self, series: str) -> _OpenSeries:
        state = self._open.get(series)
        if state is None:
            state = _OpenSeries(self._index.load(series), Stillness(self._clock()))
            self._open[series] = state
        return state

    def _take_in(self, series: str, path: Path) -> None:
        """Read a file's header into the index."""
        relative = self._relative(path)
        try:
            header = read_header(path, self._layout.spool, received_at=path.stat().st_mtime)
        except (InputRejected, OSError) as error:
            # What the disk or a lack of handles refused is not the file's fault: it must not be remembered as such.
            trouble = error if isinstance(error, OSError) else error.__cause__
            if isinstance(trouble, OSError):
                self._put_off(series, path, trouble)
            elif isinstance(error, InputRejected):
                self._refuse(series, Rejection(error.reason, error.message, relative))
            return
        except Exception as error:  # noqa: BLE001 - one file must not keep all series from being answered
            message = f"{relative} cannot be read ({describe(error)}); it is kept: please report this"
            self._refuse(series, Rejection(Reason.UNREADABLE, message, relative))
            return
        self._open[series].unread.pop(path, None)
        if header.device_uid == DEVICE_UID or self._own.has(header.sop_instance_uid):
            _log.info("our own object %s came back: kept, not used", header.sop_instance_uid)
            self._note(series, own_line(relative))
            return
        if header.sop_class_uid == sop_classes.SEGMENTATION:
            self._announce_seg(header, read_seg_reference(path))
        self._note(series, header_line(header))

    def _put_off(self, series: str, path: Path, trouble: OSError) -> None:
        unread = self._open[series].unread
        gone = isinstance(trouble, FileNotFoundError)
        unread[path] = READ_TRIES if gone else unread.get(path, 0) + 1
        when = "at the next start" if unread[path] >= READ_TRIES else "soon"
        _log.error("%s cannot be read (%s); it is read again %s", self._relative(path), trouble.strerror, when)

    def _read_again(self, series: str) -> bool:
        """Read what the disk refused; return whether nothing is left that a further try may give."""
        unread = self._open[series].unread
        for path in [path for path, tries in unread.items() if tries < READ_TRIES]:
            self._take_in(series, path)
        return all(tries >= READ_TRIES for tries in unread.values())

    def _refuse(self, series: str, rejection: Rejection) -> None:
        _log.warning("%s cannot be used: %s", rejection.subject, rejection.message)
        self._note(series, refused_line(rejection.subject, rejection))

    def _announce_seg(self, header: InstanceHeader, reference: SegReference) -> None:
        """Tell the series that a SEG refers to of it, before the SEG itself is in the index."""
        if not reference.liver:
            return
        for series in reference.series:
            settled = self._index.settled(series)
            _log.info("SEG %s with a liver belongs to series %s", header.sop_instance_uid, series)
            self._note(series, seg_line(header))
            if series in self._open or settled is None:
                continue
            if self._settings.completeness.late_seg_makes_generation:
                self._opened(series)
            else:
                _log.info("series %s is answered already: the SEG is recorded only", series)
                self._note(series, settled_line(settled))

    def _note(self, series: str, fact: dict[str, Any]) -> None:
        self._index.append(series, [fact])
        if series in self._open:
            apply(self._open[series].record, fact)

    def _answer_when_complete(self, series: str, now: float) -> None:
        state = self._open[series]
        record = state.record
        wait = patience({header.sender for header in record.headers.values()}, self._settings)
        if not state.stillness.complete(now, wait, has_seg=bool(record.segs) or not has_ct(record)):
            return
        if not self._read_again(series):
            state.stillness.touch(now + RETRY_SECONDS)
            return
        try:
            settled = self._answering.answer(series, record)
        except (OSError, ResultError) as error:
            _log.error("series %s waits: %s; trying again in %g s", series, error, RETRY_SECONDS)
            state.stillness.touch(now + RETRY_SECONDS)
            return
        except Exception as error:  # noqa: BLE001 - one series must not keep all others from being answered
            what = str(error) if isinstance(error, M3NodeError) else describe(error)
            _log.critical("series %s cannot be judged: %s", series, what)
            self._answering.fail(series, what)
            settled = Settled(record.files, unfit=True)
        self._index.append(series, [settled_line(settled)])
        del self._open[series]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._layout.spool).as_posix()


def has_ct(record: SeriesRecord) -> bool:
    """Whether a series holds anything that a SEG could refer to."""
    return any(header.sop_class_uid in sop_classes.CT for header in record.headers.values())


def run_keeper(settings: Settings, stop: threading.Event, *, record: Record, content_digest: Content) -> None:
    """Keep the data folder until ``stop`` is set.

    Parameters
    ----------
    settings : Settings
        The tree.
    stop : threading.Event
        Ends it between two steps.
    record, content_digest : callable
        As for `Keeper`.
    """
    keeper = Keeper(settings, record=record, content_digest=content_digest)
    keeper.rescan(stop)
    while not stop.is_set():
        keeper.step()
        stop.wait(POLL_SECONDS)
