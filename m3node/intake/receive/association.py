"""The lease of an open association: who is sending, what is stored so far, and whether the sender is still there.

One file an association, ``associations/<id>.jsonl``, written by the receiver that serves it and read by the keeper::

    {"calling": …, "called": …, "peer": …, "pid": …, "started": …, "opened_at": …}
    {"path": "spool/<study>/<series>/<sop>.dcm", "status": "new", "at": …, "class": …}   and "stat": true, where urgent
    {"closed": …}

While the association is open, the receiver touches the file about every second. A receiver that is killed touches it
no more and its process is gone, so that its lease never holds a series open. Nothing here is synchronised to disk:
the spool is the truth, and a restart reads it again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from m3node.process import process_started

HEARTBEAT_SECONDS = 1.0
"""How often a receiver touches the leases of its open associations."""

STALE_SECONDS = 10.0
"""A lease that was not touched for so long is dead, whatever its process does."""

_log = logging.getLogger(__name__)

_serial = count()
_ID = re.compile(r"(?P<ns>\d+)-(?P<pid>\d+)-\d+")


class OpenLease:
    """The receiver's side: writes the file; safe to touch from another thread.

    Parameters
    ----------
    folder : Path
        ``DataLayout.associations``; must exist.
    calling, called : str
        AE titles.
    peer : str
        Address of the sender.

    Raises
    ------
    OSError
        The disk refuses; nothing is left of it.
    """

    def __init__(self, folder: Path, *, calling: str, called: str, peer: str) -> None:
        pid = os.getpid()
        self.id = f"{time.time_ns():019d}-{pid}-{next(_serial)}"
        self.path = folder / f"{self.id}.jsonl"
        self._torn = False
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            self._write(
                {
                    "calling": calling,
                    "called": called,
                    "peer": peer,
                    "pid": pid,
                    "started": process_started(pid),
                    "opened_at": time.time(),
                }
            )
        except OSError:
            # A sender that knocks at a full disk for hours must not use up the handles, nor fill the folder.
            os.close(self._fd)
            self.path.unlink()
            raise

    def append(self, path: str, status: str, *, urgent: bool = False, sop_class: str = "") -> None:
        """Add a stored instance.

        Parameters
        ----------
        path : str
            File, relative to the data folder.
        status : str
            ``new``, ``duplicate`` or ``revision``.
        urgent : bool
            Whether its sender asked for high priority.
        sop_class : str
            Its SOP Class UID.
        """
        line = {"path": path, "status": status, "at": time.time(), "class": sop_class}
        self._write(line | ({"stat": True} if urgent else {}))

    def touch(self) -> None:
        """Say that the association is still open; a disk that refuses makes it look dead, which harms nobody."""
        with suppress(OSError):
            os.utime(self.path)

    def close(self) -> None:
        """Write the last line."""
        try:
            self._write({"closed": time.time()})
        finally:
            os.close(self._fd)

    def _write(self, line: dict[str, Any]) -> None:
        # One write of one line: a reader sees all of it, or a last line without its end, which it leaves alone.
        encoded = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        if self._torn:
            encoded = b"\n" + encoded
        if os.write(self._fd, encoded) < len(encoded):
            self._torn = True  # the disk is full; what follows must not be glued to this half
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False


@dataclass(frozen=True, slots=True)
class ArrivalEvent:
    """An instance was stored.

    Attributes
    ----------
    association : str
        Id of the lease.
    calling : str
        AE title of the sender.
    path : str
        File, relative to the data folder.
    status : str
        ``new``, ``duplicate`` or ``revision``.
    at : float
        Seconds since the epoch.
    urgent : bool
        Whether its sender asked for high priority.
    sop_class : str
        Its SOP Class UID; empty in leases of older releases.
    """

    association: str
    calling: str
    path: str
    status: str
    at: float
    urgent: bool = False
    sop_class: str = ""

    @property
    def study(self) -> str:
        """Study Instance UID: the name of the folder above that of the series."""
        return Path(self.path).parent.parent.name

    @property
    def series(self) -> str:
        """Series Instance UID: the name of the instance's folder."""
        return Path(self.path).parent.name


@dataclass(frozen=True, slots=True)
class ClosedEvent:
    """An association ended in good order: released, aborted or timed out, and its receiver said so."""

    association: str
    calling: str
    at: float


@dataclass(slots=True)
class Lease:
    """The reader's side: what is known of one association so far.

    Attributes
    ----------
    path : Path
        Its file.
    pid, started : int, str
        The receiver's process and when it started.
    stored : int
        Instances named so far, duplicates included.
    last_series : str
        Series Instance UID of the last of them; empty before the first.
    closed_at : float or None
        None while no last line was read.
    """

    id: str
    path: Path
    calling: str
    called: str
    peer: str
    pid: int
    started: str
    opened_at: float
    stored: int = 0
    last_series: str = ""
    last_at: float | None = None
    closed_at: float | None = None


def is_live(lease: Lease, now: float) -> bool:
    """Whether the association may still deliver.

    Parameters
    ----------
    lease : Lease
        As a reader knows it.
    now : float
        Seconds since the epoch.

    Returns
    -------
    bool
        True when it is not closed, its process is the one that opened it, and it was touched less than
        `STALE_SECONDS` ago.
    """
    if lease.closed_at is not None:
        return False
    try:
        touched = lease.path.stat().st_mtime
    except OSError:
        return False
    return now - touched < STALE_SECONDS and process_started(lease.pid) == lease.started


@dataclass(slots=True)
class LeaseReader:
    """Follows all leases of a folder; each line is reported once.

    Attributes
    ----------
    folder : Path
        ``DataLayout.associations``.
    leases : dict of str to Lease
        Every lease whose first line was read, by id; a removed file's lease leaves.
    """

    folder: Path
    leases: dict[str, Lease] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    def poll(self) -> list[ArrivalEvent | ClosedEvent]:
        """Read what was appended since the last call, oldest association first, each in its own order.

        A lease that the disk refuses is read by a later call, and takes nothing from what the others say.
        """
        events: list[ArrivalEvent | ClosedEvent] = []
        present = sorted(path for path in self.folder.glob("*.jsonl"))
        names = {path.stem for path in present}
        for gone in self.leases.keys() - names:
            del self.leases[gone]
        for gone in self._offsets.keys() - names:
            del self._offsets[gone]
        self._refused &= names
        for path in present:
            try:
                events.extend(self._follow(path))
            except OSError as error:
                if path.stem not in self._refused:
                    _log.error("lease %s cannot be read (%s): trying again", path.name, error.strerror)
                self._refused.add(path.stem)
            else:
                self._refused.discard(path.stem)
        return events

    def live(self, now: float) -> list[Lease]:
        """Return the leases that may still deliver."""
        return [lease for lease in self.leases.values() if is_live(lease, now)]

    def finished(self, now: float) -> list[Lease]:
        """Return the leases that are closed or whose process is gone, read to their end: they may be removed.

        One that only was not touched for long is not live, but stays: its receiver may be stopped or starved, and
        would go on writing into a file that nobody sees. One without a first line is its process's by its name alone.
        """
        return [
            lease
            for lease in [*self.leases.values(), *self._nameless()]
            if not is_live(lease, now)
            and (lease.closed_at is not None or process_started(lease.pid) != lease.started)
            and self._offsets.get(lease.id, 0) >= _complete_size(lease.path)
        ]

    def _nameless(self) -> Iterator[Lease]:
        """Leases without a first line whose process is gone: it was killed right after it had made the file."""
        for name in self._offsets.keys() - self.leases.keys():
            if (parts := _ID.fullmatch(name)) and not process_started(int(parts["pid"])):
                yield Lease(
                    id=name,
                    path=self.folder / f"{name}.jsonl",
                    calling="",
                    called="",
                    peer="",
                    pid=int(parts["pid"]),
                    started="unknown",
                    opened_at=int(parts["ns"]) / 1e9,
                )

    def _follow(self, path: Path) -> Iterator[ArrivalEvent | ClosedEvent]:
        name = path.stem
        try:
            with path.open("rb") as file:
                file.seek(self._offsets.get(name, 0))
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._offsets[name] = self._offsets.get(name, 0) + len(whole)
        for text in whole.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # torn by a full disk; the spool still has what it named
            if "pid" in line:
                self.leases[name] = Lease(
                    id=name,
                    path=path,
                    calling=line["calling"],
                    called=line["called"],
                    peer=line["peer"],
                    pid=line["pid"],
                    started=line["started"],
                    opened_at=line["opened_at"],
                )
            elif name in self.leases:
                yield _event(self.leases[name], line)


def _event(lease: Lease, line: dict[str, Any]) -> ArrivalEvent | ClosedEvent:
    if "closed" in line:
        lease.closed_at = line["closed"]
        return ClosedEvent(association=lease.id, calling=lease.calling, at=line["closed"])
    event = ArrivalEvent(
        association=lease.id,
        calling=lease.calling,
        path=line["path"],
        status=line["status"],
        at=line["at"],
        urgent=line.get("stat") is True,
        sop_class=line.get("class", ""),
    )
    lease.stored += 1
    lease.last_series = event.series
    lease.last_at = event.at
    return event


def _complete_size(path: Path) -> int:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    return data.rfind(b"\n") + 1


def read_leases(folder: Path) -> list[Lease]:
    """Read every lease of a folder once."""
    reader = LeaseReader(folder)
    reader.poll()
    return list(reader.leases.values())
