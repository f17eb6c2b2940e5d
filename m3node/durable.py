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
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    # Not tempfile, whose files only their owner may read: what an operator may see, his umask says.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fdatasync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True
    finally:
        os.unlink(temporary)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
