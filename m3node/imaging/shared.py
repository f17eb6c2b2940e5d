"""A volume in memory that other processes can map: a pixel that they decode is copied once.

Anonymous memory of our own needs no room in /dev/shm, which containers keep small.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np

from m3node.imaging.volume import HUArray

_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of Linux 5.14, which Python's mmap does not name."""

_POPULATED_AT_A_TIME = 8 * 1024**2
"""The call holds the interpreter's lock."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class SharedVolume:
    """HU that other processes may write, while it is open.

    Attributes
    ----------
    handle : int
        File descriptor of its memory, to hand to another process.
    memory : mmap
        What ``hu`` lies over.
    hu : ndarray of int16, shape (slices, rows, columns)
        Stays valid after `close`, for as long as it is held.
    """

    handle: int
    memory: mmap.mmap
    hu: HUArray

    def populate(self, until: Callable[[], bool]) -> None:
        """Have the kernel clear the pages now, and not when they are first written, until something else can be done.

        What is there already stays as it is; a kernel that does not know how leaves it to the first write.
        """
        with suppress(OSError):
            for start in range(0, self.hu.nbytes, _POPULATED_AT_A_TIME):
                if until():
                    return
                self.memory.madvise(_POPULATE_WRITE, start, min(_POPULATED_AT_A_TIME, self.hu.nbytes - start))

    def close(self) -> None:
        """Let no more processes in."""
        os.close(self.handle)


def map_volume(handle: int, shape: Shape) -> HUArray:
    """Map the memory behind another process's descriptor."""
    return over(mmap.mmap(handle, 2 * prod(shape)), shape)


def over(memory: mmap.mmap, shape: Shape) -> HUArray:
    """Lay a volume over the beginning of a piece of memory."""
    return np.frombuffer(memory, dtype=np.int16, count=prod(shape)).reshape(shape)
