"""Memory for volumes, used again from series to series.

A volume of 500 slices is 262 MB. Taking so much from the kernel means that it clears every page of it, and a virtual
machine whose host lends memory out meanwhile has to wait for it to come back: that took three to ten times as long as
reading the pixels. A worker that answers one series after the other needs the same memory again.
"""

from __future__ import annotations

import mmap
import threading
from math import prod

import numpy as np

from m3node.imaging.volume import HUArray

KEPT_BYTES = 512 * 1024**2
"""More than this is given back at once: a thousand slices are rare, and idle memory is somebody's."""


class VolumeMemory:
    """Hands out volumes, and takes memory for the next one that nobody looks at any more.

    One piece is kept at most. Whether anybody still looks at it is asked of the memory itself, which counts the arrays
    over it, their views included: as long as one lives, the next volume gets other memory.
    """

    def __init__(self) -> None:
        self._kept: mmap.mmap | None = None
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, int, int]) -> HUArray:
        """Return a volume of int16 whose values are whatever lay there: the caller writes every slice."""
        count = prod(shape)
        size = max(2 * count, 1)
        with self._lock:
            memory = self._kept
            if memory is None or len(memory) < size or not _unused(memory):
                memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                memory.madvise(mmap.MADV_HUGEPAGE)
                self._kept = memory if size <= KEPT_BYTES else None
            return np.frombuffer(memory, dtype=np.int16, count=count).reshape(shape)


def _unused(memory: mmap.mmap) -> bool:
    """Whether no array lies over a piece of memory: Python refuses to resize one that is in use."""
    try:
        memory.resize(len(memory))
    except (BufferError, OSError, SystemError, ValueError):
        return False
    return True
