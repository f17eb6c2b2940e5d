"""What the keeper knows of each series, on disk: ``index/<series>.jsonl``, appended by the keeper alone.

One fact a line, an object with one key::

    {"header": …}       an instance that can be used or judged
    {"refused": …}      a file that cannot be read: path, reason, message
    {"own": path}       one of our own objects that came back
    {"content": …}      what the pixels and geometry of a revision come to: path, digest
    {"seg": …}          a SEG with a liver that references this series: its header
    {"stat": true}      a sender asked for high priority
    {"rejected": …}     a generation of a stack that was not fit: stack, generation, key
    {"settled": …}      everything is answered: how many files that was, and whether any of it was not fit
    {"purged": …}       all files named so far were removed after they were answered: when

The spool is the truth and the index a memory of it, so that nothing here is synchronised to disk: a line that a crash
tore off or lost is read from the spool again. Only once files are to be removed does the index take their place: it is
on disk before the first of them goes.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3node.durable import sync_folder
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.header_json import header_from_dict, header_to_dict
from m3node.rejection import Reason, Rejection

TAIL_BYTES = 256
"""More than a ``settled`` line is long."""


@dataclass(frozen=True, slots=True)
class RejectedGeneration:
    """A generation that was not fit.

    Attributes
    ----------
    stack : str
        ``StackKey.stack``.
    generation : int
        From 1.
    slices : str
        Digest of its slices (`m3node.intake.series.manifest.slices_digest`).
    """

    stack: str
    generation: int
    slices: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A series of which everything is answered.

    Attributes
    ----------
    files : int
        How many files that was.
    unfit : bool
        Whether a stack's newest answer is a rejection: sent again, it is judged again, because the settings may be
        others now.
    purged : bool
        Whether files of the series were removed.
    """

    files: int
    unfit: bool
    purged: bool = False


@dataclass(slots=True)
class SeriesRecord:
    """Everything that the index knows of one series.

    Attributes
    ----------
    headers : dict of str to InstanceHeader
        By path relative to the spool, in order of arrival.
    refused : dict of str to Rejection
        By path.
    own : set of str
        Paths of our own objects.
    contents : dict of str to str
        Content digests of instances that have revisions, by path.
    segs : dict of str to InstanceHeader
        By path.
    rejected : list of RejectedGeneration
        What was not fit.
    urgent : bool
        Whether a sender asked for high priority.
    purged : dict of str to InstanceHeader
        What was there and was removed, by `content_of`; all else here is about what is there now.
    purged_at : float
        When, last; seconds since the epoch, 0 when nothing was.
    settled : Settled or None
        None when something is not answered.
    """

    headers: dict[str, InstanceHeader] = field(default_factory=dict)
    refused: dict[str, Rejection] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    contents: dict[str, str] = field(default_factory=dict)
    segs: dict[str, InstanceHeader] = field(default_factory=dict)
    rejected: list[RejectedGeneration] = field(default_factory=list)
    urgent: bool = False
    purged: dict[str, InstanceHeader] = field(default_factory=dict)
    purged_at: float = 0.0
    settled: Settled | None = None

    def knows(self, path: str) -> bool:
        """Whether a file of the spool was read before."""
        return path in self.headers or path in self.refused or path in self.own

    @property
    def files(self) -> int:
        """How many files of the spool were read and are still there."""
        return len(self.headers) + len(self.refused) + len(self.own)


def content_of(header: InstanceHeader) -> str:
    """Return what an instance that comes again has in common with itself: its name and its bytes."""
    return f"{header.sop_instance_uid} {header.transfer_syntax_uid} {header.sha256}"


def header_line(header: InstanceHeader) -> dict[str, Any]:
    """Return the fact that an instance is there."""
    return {"header": header_to_dict(header)}


def refused_line(path: str, rejection: Rejection) -> dict[str, Any]:
    """Return the fact that a file cannot be read."""
    return {"refused": {"path": path, "reason": rejection.reason.value, "message": rejection.message}}


def own_line(path: str) -> dict[str, Any]:
    """Return the fact that an object of ours came back."""
    return {"own": path}


def content_line(path: str, digest: str) -> dict[str, Any]:
    """Return the fact what an instance's content comes to."""
    return {"content": {"path": path, "digest": digest}}


def seg_line(header: InstanceHeader) -> dict[str, Any]:
    """Return the fact that a SEG with a liver references the series."""
    return {"seg": header_to_dict(header)}


def stat_line() -> dict[str, Any]:
    """Return the fact that a sender asked for high priority."""
    return {"stat": True}


def rejected_line(generation: RejectedGeneration) -> dict[str, Any]:
    """Return the fact that a generation was not fit."""
    return {"rejected": {"stack": generation.stack, "generation": generation.generation, "slices": generation.slices}}


def settled_line(settled: Settled) -> dict[str, Any]:
    """Return the fact that everything is answered."""
    return {"settled": {"files": settled.files, "unfit": settled.unfit, "purged": settled.purged}}


def purged_line(at: float) -> dict[str, Any]:
    """Return the fact that all files named so far go."""
    return {"purged": {"at": at}}


class Index:
    """The index files of one data folder; one writer.

    Parameters
    ----------
    folder : Path
        ``DataLayout.index``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, series: str) -> SeriesRecord:
        """Read what is known of a series, and cut off a last line that a crash tore."""
        record = SeriesRecord()
        path = self._path(series)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return record
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
        for line in data[:whole].splitlines():
            # A line can also be lost in the middle (a power cut leaves zeros): its file is read again.
            try:
                apply(record, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                record.settled = None
        return record

    def append(self, series: str, facts: Iterable[dict[str, Any]], *, durable: bool = False) -> None:
        """Add facts to a series; one write, so that at most the last line can be torn.

        Parameters
        ----------
        series : str
            Its Series Instance UID.
        facts : iterable of dict
            Lines.
        durable : bool
            Whether all that is known of the series must survive a power cut from now on.

        Raises
        ------
        OSError
            The disk refuses; the facts count as not written, and may be added again.
        """
        text = "".join(json.dumps(fact, ensure_ascii=False, separators=(",", ":")) + "\n" for fact in facts)
        with self._path(series).open("a+b", buffering=0) as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                # A crash or a full disk tore the last line: it is lost, and must not take the next with it.
                text = text if stream.read(1) == b"\n" else f"\n{text}"
            encoded = text.encode()
            if stream.write(encoded) < len(encoded):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(stream.fileno())
        if durable:
            sync_folder(self._folder)

    def changed_at(self, series: str) -> float:
        """Return when a fact was added last, seconds since the epoch; 0 when nothing is known of the series."""
        try:
            return self._path(series).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def settled(self, series: str) -> Settled | None:
        """Return how a series was settled, None when it is not; reads only the file's end."""
        try:
            with self._path(series).open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - TAIL_BYTES))
                tail = stream.read()
        except FileNotFoundError:
            return None
        lines = tail.splitlines()
        if not lines or not tail.endswith(b"\n") or not lines[-1].startswith(b'{"settled":'):
            return None
        try:
            return _settled(json.loads(lines[-1])["settled"])
        except (ValueError, KeyError, TypeError):
            return None

    def _path(self, series: str) -> Path:
        return self._folder / f"{series}.jsonl"


def apply(record: SeriesRecord, fact: dict[str, Any]) -> None:
    """Add one fact to a record.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        The fact is damaged, or of another version.
    """
    ((kind, value),) = fact.items()
    if kind != "settled":
        record.settled = None
    match kind:
        case "header":
            header = header_from_dict(value)
            record.headers[header.path] = header
        case "refused":
            record.refused[value["path"]] = Rejection(Reason(value["reason"]), value["message"], value["path"])
        case "own":
            record.own.add(str(value))
        case "content":
            record.contents[value["path"]] = value["digest"]
        case "seg":
            header = header_from_dict(value)
            record.segs[header.path] = header
        case "stat":
            record.urgent = True
        case "purged":
            at = float(value["at"])
            record.purged.update({content_of(header): header for header in record.headers.values()})
            record.purged_at = at
            for known in (record.headers, record.refused, record.own, record.contents):
                known.clear()
        case "rejected":
            record.rejected.append(RejectedGeneration(value["stack"], value["generation"], value["slices"]))
        case "settled":
            record.settled = _settled(value)
        case _:
            raise ValueError(f"unknown fact {kind!r}")


def _settled(value: dict[str, Any]) -> Settled:
    return Settled(int(value["files"]), unfit=bool(value["unfit"]), purged=bool(value.get("purged", False)))


def spooled_series(spool: Path) -> dict[str, list[Path]]:
    """Walk the spool: the folders of each series, which may lie under more than one study."""
    found: dict[str, list[Path]] = {}
    for study in sorted(spool.iterdir()):
        if study.name.startswith(".") or not study.is_dir():
            continue
        for series in sorted(study.iterdir()):
            if series.is_dir():
                found.setdefault(series.name, []).append(series)
    return found


def series_files(folders: Iterable[Path]) -> list[Path]:
    """Return the instances and revisions in a series' folders, oldest name first."""
    files: list[Path] = []
    for folder in folders:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            files.extend(folder / entry.name for entry in entries if entry.name.endswith(".dcm"))
    return sorted(files)
