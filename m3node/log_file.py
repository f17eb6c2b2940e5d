"""A log file of bounded size, whose writer neither fails nor says more than once that it does."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path


class BoundedFile(logging.Handler):
    """Appends lines to a file, and puts it aside as ``.1``, ``.2`` … when it is full; the oldest goes.

    Unbuffered, so that what is said just before the end of a process is there. A line that the disk has no room for is
    lost: a process must not end, nor wait, for its log.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    max_bytes : int
        Its size, but for a line that is larger by itself.
    files : int
        How many of them are kept aside.

    Raises
    ------
    OSError
        It cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._torn = False
        self._said = False
        self._fd = self._opened()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            self._write(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except OSError as error:
            if not self._said:
                # Not by a log call, which would come here again.
                print(f"m3node: the log file {self._path} cannot be written: {error.strerror}", file=sys.stderr)
            self._said = True
        else:
            self._said = False

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._fd)
        super().close()

    def _write(self, line: bytes) -> None:
        found = os.fstat(self._fd)
        if not found.st_nlink:  # somebody has removed it to make room, which there is only once we let go of it
            self._open_anew()
        size = 0 if not found.st_nlink else found.st_size
        if size and size + len(line) > self._max_bytes:
            self._put_aside()
        # What was cut off by a full disk must not be taken for the beginning of this one.
        line = b"\n" + line if self._torn else line
        written = os.write(self._fd, line)
        self._torn = 0 < written < len(line)

    def _put_aside(self) -> None:
        for number in range(self._files - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._aside(number).replace(self._aside(number + 1))
        with suppress(FileNotFoundError):
            self._path.replace(self._aside(1))
        self._open_anew()

    def _open_anew(self) -> None:
        before, self._fd = self._fd, self._opened()
        os.close(before)

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
