"""Files that are whole or absent, and survive a power cut: temporary file, fdatasync, link without replacing, fsync."""

from __future__ import annotations

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
