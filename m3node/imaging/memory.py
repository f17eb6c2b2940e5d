"""Memory for volumes, used again from series to series.

A volume of 500 slices is 262 MB. Taking so much from the kernel means that it clears every page of it, and a virtual
machine whose host lends memory out meanwhile has to wait for it to come back: that took three to ten times as long as
reading the pixels. A worker that answers one series after the other needs the same memory again.
"""

from __future__ import annotations

import mmap
import os
import threading
from math import prod

from m3node.imaging.shared import Shape, SharedVolume, over
from m3node.imaging.volume import HUArray

KEPT_BYTES = 512 * 1024**2
"""More than this is given back at once: a thousand slices are rare, and idle memory is somebody's."""


class VolumeMemory:
    """Hands out volumes, and takes memory for the next one that nobody looks at any more.

    One piece is kept at most. Whether anybody still looks at it is asked of the memory itself, which counts the arrays
    over it, their views included: as long as one lives, the next volume gets other memory.
    """

    def __init__(self) -> None:
        self._kept: _Piece | None = None
        self._lock = threading.Lock()

    def empty(self, shape: Shape) -> HUArray:
        """Return a volume of int16 whose values are whatever lay there: the caller writes every slice."""
        with self._lock:
            return over(self._piece(shape, shared=False).memory, shape)

    def shared(self, shape: Shape) -> SharedVolume:
        """Return a volume that other processes can write to, its values whatever lay there; the caller closes it."""
        with self._lock:
            piece = self._piece(shape, shared=True)
            return SharedVolume(os.dup(piece.handle), piece.memory, over(piece.memory, shape))

    def _piece(self, shape: Shape, *, shared: bool) -> _Piece:
        size = max(2 * prod(shape), 1)
        kept = self._kept
        if kept and len(kept.memory) >= size and (kept.handle >= 0 or not shared) and _unused(kept.memory):
            return kept
        piece = _Piece(size, shared=shared)
        self._kept = piece if size <= KEPT_BYTES else None
        return piece


class _Piece:
    """Memory, and the descriptor by which other processes can map it: -1 where they cannot."""

    def __init__(self, size: int, *, shared: bool) -> None:
        self.handle = -1
        if shared:
            self.handle = os.memfd_create("m3node-volume", os.MFD_CLOEXEC)
            os.ftruncate(self.handle, size)
            self.memory = mmap.mmap(self.handle, size)
        else:
            self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.memory.madvise(mmap.MADV_HUGEPAGE)

    def __del__(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)


def _unused(memory: mmap.mmap) -> bool:
    """Whether no array lies over a piece of memory: Python refuses to resize one that is in use."""
    try:
        memory.resize(len(memory))
    except (BufferError, OSError, SystemError, ValueError):
        return False
    return True
