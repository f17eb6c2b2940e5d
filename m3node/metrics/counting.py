"""Counts what a process does, and leaves it in a file that whoever is asked puts together with those of the others.

A file and no shared memory: a page of a sparse file that a full disk has no room for ends its process, and a receiver
has to answer on a full disk. Nothing here raises, and nothing waits for a disk: a thread of its own writes, about each
second, when something was counted. A process that takes the place of one that died goes on from its counts.
"""

from __future__ import annotations

import atexit
import bisect
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from m3node.layout import DataLayout
from m3node.metrics import families
from m3node.metrics.snapshot import Counts, Key, is_kept_by_another, read_counts, write_counts
from m3node.settings import Settings

_log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
BEAT_SECONDS = 10.0
"""How often a process that counts nothing says that it is alive, by its file's time."""

_lock = threading.Lock()
_counts = Counts()
_changed = threading.Event()
_writer: _Writer | None = None


def association_ended(result: str) -> None:
    """Count a connection to the listener that has ended; one of `families.ASSOCIATION_RESULTS`."""
    _add("associations", _word(result, families.ASSOCIATION_RESULTS))


def instance_received(result: str, bytes_: int = 0) -> None:
    """Count an instance that was offered; one of `families.INSTANCE_RESULTS`, and the bytes that were stored."""
    _add("instances_received", _word(result, families.INSTANCE_RESULTS))
    if bytes_:
        _add("received_bytes", amount=bytes_)


def stage_took(stage: str, seconds: float) -> None:
    """Count the time of one of `families.STAGES`."""
    bucket = bisect.bisect_left(families.SECONDS, seconds)
    with _lock:
        buckets, total = _counts.times.get((stage,), ((0,) * (len(families.SECONDS) + 1), 0.0))
        grown = tuple(count + (number == bucket) for number, count in enumerate(buckets))
        _counts.times[(stage,)] = (grown, total + seconds)
    _changed.set()


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Count the time of one of `families.STAGES`, where it comes to its end."""
    begun = time.monotonic()
    yield
    stage_took(stage, time.monotonic() - begun)


def delivery_ended(destination: str, outcome: str) -> None:
    """Count an attempt to deliver; a destination of the settings, and one of `families.OUTCOMES`."""
    _add("deliveries", destination, _word(outcome, families.OUTCOMES))


def web_request(status: int) -> None:
    """Count a request that the page answered, by its HTTP status."""
    _add("web_requests", _word(f"{status // 100}xx", families.CODES))


def audit_event(kind: str) -> None:
    """Count an audit message; one of `families.AUDIT_KINDS`."""
    _add("audit_events", _word(kind, families.AUDIT_KINDS))


def audit_failed() -> None:
    """Count an audit message that could not be written."""
    _add("audit_write_failures")


def process_started(process: str) -> None:
    """Count the start of a process of the node."""
    _add("process_starts", process)


def counted() -> Counts:
    """Return what this process has counted."""
    with _lock:
        return _counts.copy()


def start(settings: Settings, process: str) -> None:
    """Begin to leave this process's counts in the data folder; they go on from those of the one before it.

    Parameters
    ----------
    settings : Settings
        The tree.
    process : str
        The role: no two processes of a data folder have the same at one time.
    """
    global _writer  # noqa: PLW0603 - a process counts once, and whoever counts has nothing but a name to call
    path = DataLayout(settings.data_dir).metrics / f"{process.replace(' ', '-')}.json"
    if _writer is not None or is_kept_by_another(path):
        return
    _writer = _Writer(path)
    before = read_counts(_writer.path)
    with _lock:
        _counts.add(before)
    _changed.set()
    threading.Thread(target=_writer.run, name="metrics", daemon=True).start()
    atexit.register(_writer.write)


def write_now() -> None:
    """Leave what was counted; for a process that ends without its end being noticed (`os._exit`)."""
    if _writer is not None:
        _writer.write()


class _Writer:
    """Writes the file of one process, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._said = False

    def run(self) -> None:
        while True:
            if _changed.wait(BEAT_SECONDS):
                _changed.clear()
                self.write()
                time.sleep(WRITE_SECONDS)
            else:
                with suppress(OSError):  # takes no room, so that a full disk does not make a process look dead
                    os.utime(self.path)

    def write(self) -> None:
        with self._writing:
            try:
                write_counts(self.path, counted())
            except FileNotFoundError:
                _changed.set()  # the data folder is not made yet
            except OSError as error:
                if not self._said:
                    _log.warning("metrics cannot be written (%s); they are counted, and written later", error.strerror)
                self._said = True
                _changed.set()
                with suppress(OSError):
                    os.utime(self.path)
            else:
                self._said = False


def _add(family: str, *labels: str, amount: float = 1) -> None:
    key: Key = (family, *labels)
    with _lock:
        _counts.totals[key] = _counts.totals.get(key, 0) + amount
    _changed.set()


def _word(word: str, words: tuple[str, ...]) -> str:
    return word if word in words else "other"
