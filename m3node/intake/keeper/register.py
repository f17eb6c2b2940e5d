"""The series of which something is unanswered: what the headers of their files say, in memory and in the index."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3node.errors import InputRejected
from m3node.identity import DEVICE_UID
from m3node.intake.keeper.completeness import Stillness
from m3node.intake.keeper.index import (
    Index,
    SeriesRecord,
    Settled,
    apply,
    content_of,
    header_line,
    own_line,
    refused_line,
    seg_line,
    series_files,
    settled_line,
)
from m3node.intake.keeper.own_objects import OwnObjects
from m3node.intake.series import sop_classes
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.reading import read_header
from m3node.intake.series.seg_reference import SegReference, read_seg_reference
from m3node.layout import DataLayout
from m3node.logs import describe
from m3node.rejection import Reason, Rejection

_log = logging.getLogger(__name__)

READ_TRIES = 5
"""How often a file is read that the disk refuses, before its series is judged without it."""


@dataclass(slots=True)
class OpenSeries:
    """A series with something unanswered.

    Attributes
    ----------
    unread : dict of Path to int
        How often the disk refused which of its files.
    put_off : bool
        Whether the disk has refused its answer before.
    """

    record: SeriesRecord
    stillness: Stillness
    unread: dict[Path, int] = field(default_factory=dict)
    put_off: bool = False


class Register:
    """Reads headers into the index, once each, and knows the series that are open.

    Every method that writes raises ``OSError`` when the disk refuses, and may be called again.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    index : Index
        Gets every fact.
    late_seg_opens : bool
        Whether a SEG that arrives after the answer opens the series that it refers to.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    folders : dict of str to set of Path
        Where the series lie of which the spool holds something.
    """

    def __init__(self, layout: DataLayout, index: Index, *, late_seg_opens: bool, clock: Callable[[], float]) -> None:
        self._spool = layout.spool
        self._index = index
        self._own = OwnObjects(layout)
        self._late_seg_opens = late_seg_opens
        self._clock = clock
        self._open: dict[str, OpenSeries] = {}
        self.folders: dict[str, set[Path]] = {}

    def __contains__(self, series: str) -> bool:
        """Whether a series is open."""
        return series in self._open

    def __iter__(self) -> Iterator[str]:
        """Iterate over a copy of the open series, in the order in which they were opened."""
        return iter(tuple(self._open))

    def __getitem__(self, series: str) -> OpenSeries:
        """Return an open series."""
        return self._open[series]

    def open(self, series: str) -> OpenSeries:
        """Open a series, unless it is, with all of its files."""
        state = self._open.get(series)
        if state is None:
            state = OpenSeries(self._index.load(series), Stillness(self._clock()))
            self._open[series] = state
            try:
                # Not only what has just arrived: a line of the index that was lost is read from the spool again.
                self.take_in(series, series_files(self.folders.get(series, ())))
            except OSError:
                del self._open[series]
                raise
        return state

    def close(self, series: str, settled: Settled) -> None:
        """Write down that everything about a series is answered."""
        self._index.append(series, [settled_line(settled)])
        del self._open[series]

    def note(self, series: str, fact: dict[str, Any]) -> None:
        """Add a fact to a series, open or not."""
        self._index.append(series, [fact])
        if series in self._open:
            apply(self._open[series].record, fact)

    def take_in(self, series: str, paths: Iterable[Path]) -> None:
        """Read the headers of those files of an open series that are not known."""
        record = self._open[series].record
        for path in paths:
            if not record.knows(self._relative(path)):
                self._take_in(series, path)

    def read_again(self, series: str) -> bool:
        """Read what the disk refused; return whether nothing is left that a further try may give."""
        unread = self._open[series].unread
        for path in [path for path, tries in unread.items() if tries < READ_TRIES]:
            self._take_in(series, path)
        return all(tries >= READ_TRIES for tries in unread.values())

    def _take_in(self, series: str, path: Path) -> None:
        relative = self._relative(path)
        state = self._open[series]
        if state.record.purged and not path.exists():
            return  # it came twice, and has gone again
        try:
            header = read_header(path, self._spool, received_at=path.stat().st_mtime)
        except (InputRejected, OSError) as error:
            # What the disk or a lack of handles refused is not the file's fault: it must not be remembered as such.
            trouble = error if isinstance(error, OSError) else error.__cause__
            if isinstance(trouble, OSError):
                self._put_off(series, path, trouble)
            elif isinstance(error, InputRejected):
                self._refuse(series, path, Rejection(error.reason, error.message, relative))
            return
        except Exception as error:  # noqa: BLE001 - one file must not keep all series from being answered
            message = f"{relative} cannot be read ({describe(error)}); it is kept: please report this"
            self._refuse(series, path, Rejection(Reason.UNREADABLE, message, relative))
            return
        if content_of(header) in state.record.purged:
            path.unlink(missing_ok=True)
            _log.info("instance %s is known and was removed before: it goes again", header.sop_instance_uid)
        elif header.device_uid == DEVICE_UID or self._own.has(header.sop_instance_uid):
            _log.info("our own object %s came back: kept, not used", header.sop_instance_uid)
            self.note(series, own_line(relative))
        else:
            if header.sop_class_uid == sop_classes.SEGMENTATION:
                self._announce_seg(header, read_seg_reference(path))
            self.note(series, header_line(header))
        state.unread.pop(path, None)

    def _put_off(self, series: str, path: Path, trouble: OSError) -> None:
        unread = self._open[series].unread
        gone = isinstance(trouble, FileNotFoundError)
        unread[path] = READ_TRIES if gone else unread.get(path, 0) + 1
        when = "at the next start" if unread[path] >= READ_TRIES else "soon"
        _log.error("%s cannot be read (%s); it is read again %s", self._relative(path), trouble.strerror, when)

    def _refuse(self, series: str, path: Path, rejection: Rejection) -> None:
        self.note(series, refused_line(rejection.subject, rejection))
        self._open[series].unread.pop(path, None)  # it has its answer, also where the disk had refused it before
        _log.warning("%s cannot be used: %s", rejection.subject, rejection.message)

    def _announce_seg(self, header: InstanceHeader, reference: SegReference) -> None:
        """Tell the series that a SEG refers to of it, before the SEG itself is in the index."""
        if not reference.liver:
            return
        for series in reference.series:
            settled = self._index.settled(series)
            self.note(series, seg_line(header))
            _log.info("SEG %s with a liver belongs to series %s", header.sop_instance_uid, series)
            if series in self._open or settled is None:
                continue
            if self._late_seg_opens and not settled.purged:
                self.open(series)
            else:
                self.note(series, settled_line(settled))
                _log.info("series %s is answered already: the SEG is recorded only", series)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._spool).as_posix()
