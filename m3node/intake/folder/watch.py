"""The watched folder: what is dropped there is claimed once it has settled, processed, and moved aside.

::

    <folder>/<anything>            dropped: a folder, a ZIP, or loose files (which make one job together)
    <folder>/working/<job>/        claimed: input, and how often its processing was begun
    <folder>/done/<job>/           answered: input, reason.json, reason.txt
    <folder>/rejected/<job>/       nothing in it could be used: the same files

A job's name is made here, from the time and chance: the dropped name may hold a patient's. Claiming is one rename, so
an input is in exactly one place at any moment, and a job that a crash interrupted is taken up again from ``working``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from m3node.intake.folder.settling import Settling
from m3node.process import supervisor
from m3node.rejection import Reason, Rejection

_log = logging.getLogger(__name__)

WORKING, DONE, REJECTED = "working", "done", "rejected"
LITTER = frozenset({"thumbs.db", "desktop.ini"})
"""What Windows puts into shared folders by itself."""
CLAIMING = ".claiming-"
STARTS = "starts"
CRASH_LIMIT = 3
"""A job that was begun so often under one supervisor and never ended took its process down: it is set aside."""
SHORTEST_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one job.

    Attributes
    ----------
    processed : int
        Stacks that were answered; a job without one is rejected.
    summary : dict
        For ``reason.json``.
    rejections : tuple of Rejection
        Everything that was not used, and why.
    """

    processed: int
    summary: dict[str, Any]
    rejections: tuple[Rejection, ...]


Process = Callable[[Path, Path], Verdict]
"""Answers an input (folder, ZIP or file) into an out folder; raises ``OSError`` when it should be tried again."""


class FolderWatch:
    """One watched folder.

    Parameters
    ----------
    folder : Path
        Made when absent.
    out : Path
        Results appear in ``out/<job>/``.
    settle_seconds : float
        How long an entry must not have changed.
    process : callable
        Answers one input.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        settle_seconds: float,
        process: Process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._out = out
        self._process = process
        self._settling = Settling(settle_seconds, clock)
        self._skipped: set[Path] = set()
        for name in (WORKING, DONE, REJECTED):
            (folder / name).mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        self._undo_half_claims()

    def step(self, stop: threading.Event) -> int:
        """Claim what has settled and answer every claimed job; return how many jobs ended."""
        self.claim()
        ended = 0
        for job in sorted((self._folder / WORKING).iterdir()):
            if stop.is_set():
                break
            if not job.name.startswith("."):
                ended += self._answer(job)
        return ended

    def claim(self) -> tuple[Path, ...]:
        """Move settled entries to ``working``; return the jobs made of them."""
        entries = tuple(self._entries())
        settled = frozenset(self._settling.settled(entries))
        loose = [path for path in entries if not path.is_dir() and not _is_zip(path)]
        groups = [[path] for path in entries if path in settled and path not in loose]
        if loose and settled.issuperset(loose):
            # Files copied one by one are the slices of a series more often than not.
            groups.append(loose)
        return tuple(job for group in groups if (job := self._take(group)) is not None)

    def _entries(self) -> Iterator[Path]:
        for path in sorted(self._folder.iterdir()):
            if path.name in (WORKING, DONE, REJECTED) or path.name.startswith(".") or path.name.lower() in LITTER:
                continue
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                if path not in self._skipped:
                    self._skipped.add(path)
                    _log.warning("an entry of the watched folder is a link or no file, and is left alone")
                continue
            yield path

    def _take(self, group: list[Path]) -> Path | None:
        name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        claiming = self._folder / WORKING / f"{CLAIMING}{name}"
        claiming.mkdir()
        single = len(group) == 1 and (group[0].is_dir() or _is_zip(group[0]))
        taken = 0
        for number, path in enumerate(group, start=1):
            if single:
                target = claiming / ("input" if path.is_dir() else "input.zip")
            else:
                (claiming / "input").mkdir(exist_ok=True)
                target = claiming / "input" / f"{number:06d}.dcm"
            try:
                path.rename(target)
                taken += 1
            except OSError as error:
                _log.warning("an entry of the watched folder cannot be moved yet: %s", error.strerror)
        if not taken:
            shutil.rmtree(claiming)
            return None
        job = self._folder / WORKING / name
        claiming.rename(job)
        _log.info("watched folder: job %s begins with %d entries", name, taken)
        return job

    def _undo_half_claims(self) -> None:
        """Put back what a crash left half claimed: its rest still lies in the folder, and belongs to it."""
        for claiming in (self._folder / WORKING).glob(f"{CLAIMING}*"):
            name = claiming.name.removeprefix(CLAIMING)
            if (claiming / "input").is_dir() and _is_numbered(claiming / "input"):
                for path in sorted((claiming / "input").iterdir()):
                    path.rename(self._folder / f"{name}-{path.name}")
                (claiming / "input").rmdir()
            for path in claiming.iterdir():
                path.rename(self._folder / f"{name}-{path.name}")
            claiming.rmdir()

    def _answer(self, job: Path) -> int:
        if not (job / "reason.json").exists():
            verdict = self._crashed(job)
            if verdict is None:
                source = job / "input.zip" if (job / "input.zip").exists() else job / "input"
                try:
                    verdict = self._process(source, self._out / job.name)
                except OSError:
                    # The disk's trouble, not this job's: it waits, and no start is counted against it.
                    (job / STARTS).unlink(missing_ok=True)
                    raise
            _write_reason(job, verdict, self._out / job.name)
        processed = int(json.loads((job / "reason.json").read_text(encoding="utf-8"))["processed"])
        (job / STARTS).unlink(missing_ok=True)
        where = DONE if processed else REJECTED
        job.rename(self._folder / where / job.name)
        _log.info("watched folder: job %s is %s, %d stacks answered", job.name, where, processed)
        return 1

    @staticmethod
    def _crashed(job: Path) -> Verdict | None:
        """Count this start; return a verdict when earlier ones each took the process down."""
        starts = job / STARTS
        before = starts.read_text(encoding="ascii", errors="replace").split() if starts.exists() else []
        if before.count(supervisor()) >= CRASH_LIMIT:
            message = f"the process died {CRASH_LIMIT} times over job {job.name}; it is set aside, the input is kept"
            _log.error("watched folder: %s", message)
            return Verdict(0, {}, (Rejection(Reason.FAILED, message, job.name),))
        with starts.open("a", encoding="ascii") as stream:
            stream.write(f"{supervisor()}\n")
        return None


def watch_folder(watch: FolderWatch, folder: Path, settle_seconds: float, stop: threading.Event) -> None:
    """Serve a watched folder until ``stop`` is set.

    The file system's events only make the next look come sooner; looking is what finds, because network file
    systems send no events.
    """
    pause = max(SHORTEST_PAUSE, min(1.0, settle_seconds / 4))
    away = False
    with _woken_by_events(folder) as woken:
        while not stop.is_set():
            try:
                watch.step(stop)
                away = False
            except OSError as error:
                if not away:
                    _log.error("the watched folder waits: %s; trying again", error.strerror)
                away = True
            woken.wait(pause)
            stop.wait(SHORTEST_PAUSE)
            woken.clear()


class _Waker(FileSystemEventHandler):
    def __init__(self) -> None:
        self.event = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        self.event.set()


@contextlib.contextmanager
def _woken_by_events(folder: Path) -> Iterator[threading.Event]:
    waker = _Waker()
    observer = Observer()
    # Not recursive: done/ may grow without bound, and each folder below it would cost a kernel watch.
    observer.schedule(waker, str(folder), recursive=False)
    try:
        observer.start()
    except OSError as error:
        _log.info("no file system events here (%s): the watched folder is polled", error.strerror)
        yield waker.event
        return
    try:
        yield waker.event
    finally:
        observer.stop()
        observer.join()


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def _is_numbered(folder: Path) -> bool:
    return all(path.is_file() and path.stem.isdigit() and path.suffix == ".dcm" for path in folder.iterdir())


def _write_reason(job: Path, verdict: Verdict, out: Path) -> None:
    """Say beside the input what became of it: for programs, and for people."""
    answered = "1 stack was" if verdict.processed == 1 else f"{verdict.processed} stacks were"
    head = (
        f"{answered} answered; the results are in {out}."
        if verdict.processed
        else "Nothing in this input could be used."
    )
    lines = [head, *(f"- {item.message} [{item.reason.value}: {item.subject}]" for item in verdict.rejections)]
    (job / "reason.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tree = {
        "schema": "m3node.watch/1",
        "processed": verdict.processed,
        "results": str(out) if verdict.processed else None,
        "reasons": [
            {"reason": item.reason.value, "message": item.message, "subject": item.subject}
            for item in verdict.rejections
        ],
        "summary": verdict.summary,
    }
    # Last, and whole: its existence means that the job is answered and only has to be moved.
    temporary = job / ".reason.part"
    temporary.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(job / "reason.json")
