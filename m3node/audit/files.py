"""The files of the trail: one a month, a message a line, only ever added to, readable by their owner alone.

Many processes write at once. Each line goes out in one write behind a lock (``flock``), and is on disk when the call
returns: there are few of them, and what is audited may be the last thing that happens. The node removes and rotates
none of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m3node.durable import sync_folder
from m3node.layout import DataLayout
from m3node.settings import Settings

FILE_MODE, FOLDER_MODE = 0o600, 0o700

PATIENCE_SECONDS = 1.0
"""How long a line waits for another process's; one that was stopped in the middle must not stop everybody."""

_MONTH = re.compile(r"\d{4,}-\d{2}")


def folder_of(settings: Settings) -> Path:
    """Return the folder of the trail."""
    return (settings.audit.folder or DataLayout(settings.data_dir).audit).absolute()


def months(folder: Path) -> list[Path]:
    """Return the files of a trail, oldest first; none where there is no trail yet."""
    return sorted(path for path in folder.glob("*.xml") if _MONTH.fullmatch(path.stem))


def append(folder: Path, line: bytes, now: float) -> None:
    """Add a message to the file of its month (UTC), durably.

    Parameters
    ----------
    folder : Path
        The trail's; made when it is not there.
    line : bytes
        The message, without the line's end.
    now : float
        Seconds since the epoch: when it is written, so that a file of an earlier month is complete.

    Raises
    ------
    OSError
        The disk refuses. Half a line may be left, which the next one ends.
    """
    path = folder / f"{time.strftime('%Y-%m', time.gmtime(now))}.xml"
    handle = _opened(path)
    try:
        with _alone(handle):
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            data = b"\n" * torn + line + b"\n"
            if os.write(handle, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        os.fdatasync(handle)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise
    finally:
        os.close(handle)


def trouble(settings: Settings) -> str:
    """Say what keeps the trail from being written, as far as can be told without writing; empty when nothing does."""
    folder = folder_of(settings)
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # False where we may not look
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written"
    newest = months(folder)[-1:]
    if newest and not os.access(newest[0], os.R_OK | os.W_OK):
        return f"{newest[0]} cannot be written"
    if os.statvfs(there).f_bavail == 0:
        return f"the disk of {there} is full"
    return ""


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        _make_folder(path.parent)
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:  # another process was quicker
        return os.open(path, flags)
    os.fchmod(handle, FILE_MODE)  # a umask may have taken our own right to come back
    _give_to_owner(handle, path.parent)
    sync_folder(path.parent)
    return handle


def _make_folder(folder: Path) -> None:
    """Make the folder; one that is there keeps its mode, which is the administrator's choice then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        return
    folder.chmod(FOLDER_MODE)
    _give_to_owner(folder, folder.parent)


def _give_to_owner(made: int | Path, where: Path) -> None:
    """Let what the superuser makes, who looks at the trail, belong to whom the folder around it does: the node."""
    if os.geteuid() == 0:
        owner = where.stat()
        os.chown(made, owner.st_uid, owner.st_gid)


@contextmanager
def _alone(handle: int) -> Iterator[None]:
    """Lock the file against others who add to it; after some patience go on without, since a write of one line is whole
    on a local disk all the same."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                break
            time.sleep(0.002)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
