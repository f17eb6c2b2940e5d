"""A volume in memory that worker processes can map: a pixel that they decode is copied once.

Anonymous memory of our own needs no room in /dev/shm, which containers keep small.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from m3node.imaging.volume import HUArray

Shape = tuple[int, int, int]


class SharedVolume:
    """HU that other processes may write, while it is open.

    Attributes
    ----------
    shape : tuple of int
        Slices, rows, columns.
    handle : int
        File descriptor for a child process to inherit.
    hu : ndarray of int16
        Stays valid after `close`, for as long as it is held.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.handle = os.memfd_create("m3node-volume", os.MFD_CLOEXEC)
        os.ftruncate(self.handle, _size(shape))
        self.hu = map_volume(self.handle, shape)

    def close(self) -> None:
        """Let no more processes in."""
        os.close(self.handle)


def map_volume(handle: int, shape: Shape) -> HUArray:
    """Map the memory behind an inherited descriptor."""
    return np.frombuffer(mmap.mmap(handle, _size(shape)), dtype=np.int16).reshape(shape)


def _size(shape: Shape) -> int:
    return 2 * int(np.prod(shape))
