"""Files that are whole or absent, and survive a power cut: temporary file, fdatasync, link without replacing, fsync."""

from __future__ import annotations

import math
import os
import uuid
from pathlib import Path


def write_once(path: Path, content: bytes) -> bool:
    """Write a file that nobody can see half of and nobody replaces.

    Parameters
    ----------
    path : Path
        Its name; parent folders exist.
    content : bytes
        All of it.

    Returns
    -------
    bool
        False when a file of that name was there already; it stays as it was.
    """
    temporary = _written(path.parent, content)
    try:
        try:
            os.link(temporary, path)
            new = True
        except FileExistsError:
            new = False
        # Also for one that was there: who wrote it may not have come to this line, and the caller builds on it.
        sync_folder(path.parent)
        return new
    finally:
        temporary.unlink()


def write_over(path: Path, content: bytes) -> None:
    """Write a file durably in the place of one that may be there: a reader sees the old one or the new one, whole.

    Parameters
    ----------
    path : Path
        Its name; parent folders exist.
    content : bytes
        All of it.
    """
    temporary = _written(path.parent, content)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def remove_parts(folder: Path, before: float = math.inf) -> int:
    """Remove what processes that were killed left half written; nobody can see it as a file of its name.

    Parameters
    ----------
    folder : Path
        Where; not below it. It need not be there.
    before : float
        Only what was last written to before that (seconds since the epoch): what is younger may be somebody's work.

    Returns
    -------
    int
        How many.
    """
    removed = 0
    for path in folder.glob(".*.part"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue  # its writer has just finished
    return removed


def _written(folder: Path, content: bytes) -> Path:
    """Write a temporary file whose bytes are on disk; none is left when that fails."""
    temporary = folder / f".{uuid.uuid4().hex}.part"
    # Not tempfile, whose files only their owner may read: what an operator may see, his umask says.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fdatasync(stream.fileno())
    except OSError as error:
        temporary.unlink()
        # A full disk names no file by itself, and who reads of it has to know which disk.
        error.filename = error.filename or os.fspath(folder)
        raise
    except BaseException:
        temporary.unlink()
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
