"""Puts a finished file in place: once, whole and on the disk, or not at all (decisions 4 and 6 of the design)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from m3node.errors import ResultError


def place(path: Path, content: bytes, *, replace: bool = False) -> bool:
    """Write a file so that it is never seen half and never lost after this returns.

    A temporary file beside it, fdatasync, a hard link to its name, fsync of the folder: a link refuses to replace
    what another process has put there, which a rename would do silently.

    Parameters
    ----------
    path : Path
        The file; its folder is made when absent.
    content : bytes
        All of it.
    replace : bool
        Replace a file that is there, atomically. Only for what nobody may have read yet.

    Returns
    -------
    bool
        False when the file was there already, and stays as it was.

    Raises
    ------
    ResultError
        The disk refuses: full, read-only, no permission.
    """
    try:
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(descriptor, 0o644)
                os.fdatasync(descriptor)
            if replace:
                os.replace(name, path)
            else:
                os.link(name, path)
        except FileExistsError:
            return False
        finally:
            Path(name).unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise ResultError(f"cannot write {path.name} into {path.parent}: {error.strerror}") from error
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each name durable in the folder above it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
