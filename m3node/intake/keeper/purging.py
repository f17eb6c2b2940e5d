"""Removes received pixels once they are not needed any more: first the fact, on disk, then the files.

A kill in between leaves files of which the index says that they are gone. They are taken in like any that come again
after they were removed: what is known goes without a word, so that an interrupted removal is finished by itself.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m3node.intake.keeper.index import Index, Settled, purged_line, series_files, settled_line

_log = logging.getLogger(__name__)

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Held:
    """A series that lies in the spool.

    Attributes
    ----------
    series : str
        Its Series Instance UID.
    studies : frozenset of str
        Study Instance UIDs under which it lies; one, for a series in order.
    answered_at : float
        Since when nothing was learned about it, seconds since the epoch; infinite while something is not answered.
        Such a one may not go, nor what it needs: a SEG of its study.
    """

    series: str
    studies: frozenset[str]
    answered_at: float


Disposable = Callable[[Sequence[Held]], Iterable[str]]
"""Names the series whose pixels may go now, in that order; asked for the next one when one is gone."""


def none_of_them(held: Sequence[Held]) -> Iterable[str]:
    """Keep everything."""
    return ()


def purge(series: str, folders: Iterable[Path], spool: Path, index: Index) -> bool:
    """Remove the files of a series that the index knows.

    The folders stay: a receiver may just be storing into one.

    Parameters
    ----------
    series : str
        Its Series Instance UID; everything about it is answered.
    folders : iterable of Path
        Where it lies.
    spool : Path
        What the index's paths are relative to.
    index : Index
        Gets the fact.

    Returns
    -------
    bool
        False when there are files that the index does not know, and nothing was removed: they have just arrived, and
        make another generation of what is here.

    Raises
    ------
    OSError
        The disk refuses; calling again goes on where this ended.
    """
    record = index.load(series)
    files = series_files(folders)
    if not all(record.knows(path.relative_to(spool).as_posix()) for path in files):
        return False
    if not files:
        return True
    facts = [purged_line(time.time()), settled_line(Settled(0, unfit=False, purged=True))]
    left = files
    try:
        index.append(series, facts, durable=True)
    except OSError as error:
        if error.errno not in _NO_SPACE or len(files) < 2:
            raise
        # Not even room for a line. One file makes it; killed before the line is there, the next look finds the series
        # as disposable as it was.
        files[0].unlink()
        left = files[1:]
        index.append(series, facts, durable=True)
    for path in left:
        path.unlink(missing_ok=True)
    _log.info("series %s: %d received files removed, their answer stays", series, len(files))
    return True
