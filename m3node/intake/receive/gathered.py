"""The bytes of a data set while it comes in: in memory while they are few, in an unnamed file of the spool beyond.

An enhanced CT may have a gigabyte, several associations may send one at once, and a peer may go on without end. Memory
stays bounded whatever they do; a disk that is full is answered as such.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from m3node.disk import Watermark
from m3node.intake.receive.spool import write_all

IN_MEMORY = 16 * 1024 * 1024
"""The most that an association holds in memory of what it receives."""

_FIRST = 1024 * 1024


class TooLargeError(OSError):
    """A data set is larger than its sender may send."""

    def __init__(self, setting: str) -> None:
        super().__init__(errno.EFBIG, f"larger than {setting}")


class Gathered:
    """A growing run of bytes; the memory is used again for the next one.

    Parameters
    ----------
    folder : Path
        Where what is too large for the memory goes, in a file that has no name and ends with its process.
    room : Watermark, optional
        Below it the disk counts as full: a data set without end must not take what the node needs to go on.

    Attributes
    ----------
    most : int
        Bytes; of a run that is longer nothing is kept, in memory or on disk.
    most_setting : str
        The setting that this comes from, and its value.
    trouble : OSError or None
        Why not all of the bytes are here.
    """

    def __init__(self, folder: Path, room: Watermark | None = None) -> None:
        self._folder = folder
        self._room = room
        self._buffer = bytearray()
        self._length = 0
        self._file: BinaryIO | None = None
        self.most = sys.maxsize
        self.most_setting = ""
        self.trouble: OSError | None = None

    def clear(self) -> None:
        """Begin anew; what `view` gave is not valid any more."""
        self._length = 0
        self._close()
        self.trouble = None

    def release(self) -> None:
        """Begin anew without the memory."""
        self.clear()
        self._buffer = bytearray()

    def add(self, fragment: memoryview) -> None:
        """Append bytes; what is too large or what the disk refuses is dropped, and `trouble` says so."""
        if self.trouble is not None:
            return
        end = self._length + len(fragment)
        if end > self.most:
            self._close()
            self.trouble = TooLargeError(self.most_setting)
            return
        if end > IN_MEMORY:
            try:
                self._add_to_file(fragment)
            except OSError as error:
                self._close()
                self.trouble = error
                return
        else:
            if end > len(self._buffer):
                grown = bytearray(min(max(2 * len(self._buffer), end, _FIRST), IN_MEMORY))
                memoryview(grown)[: self._length] = memoryview(self._buffer)[: self._length]
                self._buffer = grown
            memoryview(self._buffer)[self._length : end] = fragment  # a bytearray's own slice would copy it first
        self._length = end

    def view(self) -> memoryview:
        """Return all bytes; empty when there was trouble."""
        if self.trouble is not None:
            return memoryview(b"")
        if self._file is None:
            return memoryview(self._buffer)[: self._length]
        try:
            return memoryview(mmap.mmap(self._file.fileno(), self._length, access=mmap.ACCESS_READ))
        except OSError as error:
            self.trouble = error
            return memoryview(b"")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add_to_file(self, fragment: memoryview) -> None:
        if self._room is not None and self._room.below():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._file is None:
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - lives until `clear`
            self._file = cast(BinaryIO, file)
            write_all(self._file.fileno(), (memoryview(self._buffer)[: self._length],))
        write_all(self._file.fileno(), (fragment,))
