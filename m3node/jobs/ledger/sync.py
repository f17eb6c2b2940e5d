"""Follows the files: the ledger's rows made from the data folder, all of them or what has changed since the last time.

What a note says and what is read here of the same file is the same row. A role's note can be overtaken by an older
state of its file that was being read here; the file has changed, and so the next pass reads it again.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, delete, select, tuple_

from m3node.delivery.entry import Entry
from m3node.delivery.outbox import box_of
from m3node.delivery.state import ENDS
from m3node.errors import M3NodeError
from m3node.intake.series.manifest import StackKey
from m3node.jobs.answer.record import RECORD, RunRecord
from m3node.jobs.ledger.database import reading, writing
from m3node.jobs.ledger.files import (
    read_end,
    read_entry,
    read_manifest_facts,
    read_rejection,
    read_series,
)
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.rows import ManifestFacts, entry_row, rejected_row
from m3node.jobs.ledger.states import RUN_ENDS
from m3node.jobs.ledger.tables import Delivery, Mark, Run, Series
from m3node.jobs.ledger.upsert import Row, upsert
from m3node.jobs.ledger.writes import put_index, put_manifests, put_records, requeue
from m3node.layout import DataLayout
from m3node.progress import Progress, silent

_log = logging.getLogger(__name__)

BATCH = 500
"""Files of one transaction: other writers wait no longer than for these."""
SLACK_SECONDS = 2.0
"""File systems tell time in ticks, and those of a server not all alike."""
_MARK = "files"


@dataclass(slots=True)
class SyncReport:
    """What was read: how many files of each kind, and the names of those that are damaged."""

    series: int = 0
    manifests: int = 0
    runs: int = 0
    deliveries: int = 0
    damaged: list[str] = field(default_factory=list)


def sync(layout: DataLayout, ledger: Ledger, *, progress: Progress = silent) -> SyncReport:
    """Make every row from the files; doing it again changes nothing.

    Rows that no file speaks of stay where they are a memory (instances, ended runs, ended deliveries); those of
    something that would still have to be done go.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    OSError
        The disk refuses.
    """
    return _follow(layout, ledger, whole=True, progress=progress)


def catch_up(layout: DataLayout, ledger: Ledger) -> SyncReport:
    """Make the rows of what has changed on disk since the last pass; everything, where there was none.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    OSError
        The disk refuses.
    """
    return _follow(layout, ledger, whole=False, progress=silent)


def _follow(layout: DataLayout, ledger: Ledger, *, whole: bool, progress: Progress) -> SyncReport:
    with _alone(layout) as now:
        last = _last(ledger)
        # After a clock that was set back, nothing says what has changed.
        since = 0.0 if whole or last > now else last - SLACK_SECONDS
        follower = _Follower(layout, ledger.engine, since, progress)
        report = follower.follow()
        mark: Row = {"name": _MARK, "at": now}
        with writing(ledger.engine) as connection:
            upsert(connection, Mark, [mark])
        return report


@contextmanager
def _alone(layout: DataLayout) -> Iterator[float]:
    """Be the only one who follows the files, and know what time the disk says it is."""
    with (layout.locks / "ledger.lock").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.utime(stream.fileno())
        yield os.fstat(stream.fileno()).st_ctime


def _last(ledger: Ledger) -> float:
    with reading(ledger.engine) as connection:
        return connection.scalar(select(Mark.at).where(Mark.name == _MARK)) or 0.0


_Item = TypeVar("_Item")
_Facts = TypeVar("_Facts")


class _Follower:
    """One pass over the files that have changed since a time; by ctime, which a rename changes as well."""

    def __init__(self, layout: DataLayout, engine: Engine, since: float, progress: Progress) -> None:
        self._layout = layout
        self._engine = engine
        self._since = since
        self._progress = progress
        self._report = SyncReport()

    def follow(self) -> SyncReport:
        self._follow_index()
        self._follow_manifests()
        self._follow_results()
        self._follow_outbox()
        return self._report

    def _follow_index(self) -> None:
        paths = self._changed(self._layout.index, ".jsonl")
        self._report.series = self._batches("index", paths, read_series, put_index, weight=25)

    def _follow_manifests(self) -> None:
        paths = self._replaced(self._layout.manifests)

        def write(connection: Connection, batch: Sequence[ManifestFacts]) -> None:
            put_manifests(connection, batch)

        self._report.manifests = self._batches("manifests", paths, read_manifest_facts, write)
        self._forget_without_manifest()

    def _forget_without_manifest(self) -> None:
        unended = select(Run.run).where(Run.state.not_in(RUN_ENDS))
        with reading(self._engine) as connection:
            runs = connection.scalars(unended).all()
        gone = [run for run in runs if not (self._layout.manifests / f"{run}.json").exists()]
        self._write(_forget_runs, gone)

    def _follow_results(self) -> None:
        folders = self._changed(self._layout.results, "")
        ended: list[Path] = []
        rejected: list[Path] = []
        begun: list[str] = []
        for folder in folders:
            if (folder / RECORD).exists():
                ended.append(folder)
            elif (self._layout.manifests / f"{folder.name}.json").exists():
                begun.append(folder.name)
            else:
                rejected.append(folder)

        def read(folder: Path) -> tuple[RunRecord, str, float] | None:
            end = read_end(folder)
            return None if end is None else (end[0], folder.name, end[1])

        self._report.runs = self._batches("results", ended, read, put_records)
        self._follow_rejected(rejected)
        # What had ended runs again when its record is moved aside; asked once more, since it may have ended meanwhile.
        again = [run for run in begun if not (self._layout.results / run / RECORD).exists()]
        self._write(requeue, again)

    def _follow_rejected(self, folders: Sequence[Path]) -> None:
        studies: dict[str, str] = {}
        if folders:
            with reading(self._engine) as connection:
                rows = connection.execute(select(Series.series_instance_uid, Series.study_instance_uid)).all()
            studies = {row[0]: row[1] for row in rows}

        def read(folder: Path) -> Row | None:
            if not (folder / "findings.json").exists():
                return None  # begun by a kill, before anything was in it
            rejection, at = read_rejection(folder)
            key = _key(folder.name, studies)
            study = studies.get(key.series_instance_uid, "")
            return rejected_row(key, folder.name, study, rejection, at)

        def write(connection: Connection, batch: Sequence[Row]) -> None:
            upsert(connection, Run, batch)

        self._report.runs += self._batches("reasons", folders, read, write)

    def _follow_outbox(self) -> None:
        waiting: set[tuple[str, str]] = set()
        changed: list[tuple[str, Path]] = []
        for box, _ in _entries(self._layout.outbox, ""):
            waiting |= {(box.name, name.removesuffix(".json")) for name in os.listdir(box)}
            # What is filed wins over what still waits under the same name: a kill came between the two.
            for filed in ("", "sent", "aside"):
                changed += [(filed, path) for path in self._replaced(box / filed)]
        missing = self._unended_deliveries() - waiting
        changed += sorted(self._filed(missing) - set(changed))

        def read(item: tuple[str, Path]) -> Entry:
            filed, path = item
            return read_entry(path, filed)

        def write(connection: Connection, batch: Sequence[Entry]) -> None:
            rows = {(entry.destination, entry.name): entry_row(entry) for entry in batch}
            upsert(connection, Delivery, [rows[key] for key in sorted(rows)])

        self._report.deliveries = self._batches("outbox", changed, read, write)
        gone = [(where, name) for where, name in sorted(missing) if not box_of(self._layout, where).holds(name)]
        self._write(_forget_deliveries, gone)

    def _unended_deliveries(self) -> set[tuple[str, str]]:
        unended = select(Delivery.destination, Delivery.name).where(Delivery.state.not_in(ENDS))
        with reading(self._engine) as connection:
            return {(row[0], row[1]) for row in connection.execute(unended)}

    def _filed(self, names: Collection[tuple[str, str]]) -> set[tuple[str, Path]]:
        """Find what has ended although its row does not say so: of two roles' notes the older one may come last."""
        return {
            (filed, path)
            for destination, name in names
            for filed in ("sent", "aside")
            if (path := box_of(self._layout, destination).folder / filed / f"{name}.json").exists()
        }

    def _changed(self, folder: Path, suffix: str) -> list[Path]:
        """Return the files, or with an empty suffix the folders, that have changed, by name."""
        return [path for path, at in _entries(folder, suffix) if at >= self._since]

    def _replaced(self, folder: Path) -> list[Path]:
        """The same of JSON files that are only ever written under a new name, which changes their folder."""
        try:
            return self._changed(folder, ".json") if folder.stat().st_mtime >= self._since else []
        except FileNotFoundError:
            return []

    def _batches(
        self,
        stage: str,
        items: Sequence[_Item],
        read: Callable[[_Item], _Facts | None],
        write: Callable[[Connection, Sequence[_Facts]], object],
        weight: int = 1,
    ) -> int:
        """Read files, each of which is as much as ``weight`` others, and write their rows; return how many there were.

        A batch is a transaction.
        """
        count = 0
        size = max(BATCH // weight, 1)
        for start in range(0, len(items), size):
            facts: list[_Facts] = []
            for item in items[start : start + size]:
                try:
                    found = read(item)
                except FileNotFoundError:
                    continue  # moved since the folder was listed; the next pass finds it
                except M3NodeError as error:
                    _log.debug("not in the ledger: %s", error)
                    self._report.damaged.append(str(error))
                    continue
                if found is not None:
                    facts.append(found)
            self._write(write, facts)
            count += len(facts)
            self._progress(stage, min(start + size, len(items)), len(items))
        return count

    def _write(self, write: Callable[[Connection, Sequence[_Facts]], object], facts: Sequence[_Facts]) -> None:
        for start in range(0, len(facts), BATCH):
            with writing(self._engine) as connection:
                write(connection, facts[start : start + BATCH])


def _forget_runs(connection: Connection, runs: Sequence[str]) -> None:
    connection.execute(delete(Run).where(Run.run.in_(runs), Run.state.not_in(RUN_ENDS)))


def _forget_deliveries(connection: Connection, names: Sequence[tuple[str, str]]) -> None:
    key = tuple_(Delivery.destination, Delivery.name)
    connection.execute(delete(Delivery).where(key.in_(names), Delivery.state.not_in(ENDS)))


def _key(run: str, studies: Collection[str]) -> StackKey:
    """Return the stack of a folder of reasons, ``<label>.g<generation>[.<digest>]``; only the index tells series apart.

    A stack's digest may look like a part of a UID.
    """
    label = run.rpartition(".g")[0]
    series, _, stack = label.rpartition(".")
    return StackKey(series, stack) if label not in studies and series in studies else StackKey(label, "")


def _entries(folder: Path, suffix: str) -> Iterator[tuple[Path, float]]:
    """List the files of a folder, or with an empty suffix its folders, by name, each with its ctime."""
    found: list[tuple[str, float]] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            wanted = entry.name.endswith(suffix) if suffix else entry.is_dir()
            if wanted and not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat().st_ctime))
    for name, at in sorted(found):
        yield folder / name, at
