"""Puts a finished file into a run's folder: once, whole and durable, or with a clear error."""

from __future__ import annotations

from pathlib import Path

from m3node.durable import sync_folder, write_once
from m3node.errors import ResultError


def place(path: Path, content: bytes) -> bool:
    """Write a file that stays as it is from then on.

    Parameters
    ----------
    path : Path
        The file; its folder is made when absent.
    content : bytes
        All of it.

    Returns
    -------
    bool
        False when the file was there already: it stays as it was.

    Raises
    ------
    ResultError
        The disk refuses: full, read-only, no permission.
    """
    try:
        _make_folder(path.parent)
        return write_once(path, content)
    except OSError as error:
        raise ResultError(f"cannot write {path.name} into {path.parent}: {error.strerror}") from error


def discard(path: Path) -> None:
    """Remove a file that an interrupted run left and nobody can have read."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(f"cannot remove {path}: {error.strerror}") from error


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each name durable in the folder above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
