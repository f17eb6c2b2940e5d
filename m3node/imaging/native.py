"""Reads native pixels straight from file into the volume, at the offsets that the headers hold."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRBigEndian

from m3node.errors import InputRejected
from m3node.imaging.rescale import Stored, bounds_of, unpack_bits, write_hu
from m3node.imaging.volume import HUArray
from m3node.intake.series.header import InstanceHeader, PixelLayout
from m3node.rejection import Reason

_PIXEL_DATA = (0x7FE0, 0x0010)


@dataclass(frozen=True, slots=True)
class FrameTask:
    """One frame to bring into one slice of the volume."""

    slice_index: int
    frame: int
    slope: float
    intercept: float


def read_native(path: Path, header: InstanceHeader, tasks: Sequence[FrameTask], hu: HUArray, room: HUArray) -> None:
    """Read frames of one uncompressed instance into their slices.

    Parameters
    ----------
    path : Path
        The file.
    header : InstanceHeader
        Read earlier; the file must still be the one that it describes.
    tasks : sequence of FrameTask
        Which frames go where.
    hu : ndarray of int16, shape (slices, rows, columns)
        Written to.
    room : ndarray of int16, shape (rows, columns)
        What comes from the file lies here first: one slice that stays in the core's cache, so that the volume's
        memory, which is not, is written once.

    Raises
    ------
    InputRejected
        ``UNDECODABLE``: the file is gone, was changed, or is cut short.
    """
    layout = _layout(header)
    bounds = bounds_of(layout.bits_stored, signed=layout.pixel_representation == 1)
    with _opened(path, header) as handle:
        for task in tasks:
            stored = _frame(handle, header, task.frame, room)
            write_hu(stored, task.slope, task.intercept, hu[task.slice_index], bounds=bounds)


def native_frames(path: Path, header: InstanceHeader, frames: Sequence[int]) -> list[Stored]:
    """Read stored values, without rescale, of frames (from 0) of one uncompressed instance; errors as `read_native`."""
    layout = _layout(header)
    with _opened(path, header) as handle:
        return [
            _frame(handle, header, frame, np.empty((layout.rows, layout.columns), dtype=np.int16)) for frame in frames
        ]


@contextmanager
def _opened(path: Path, header: InstanceHeader) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(header, f"its file cannot be opened ({error.strerror})") from error
    try:
        _check_element(handle, header)
        yield handle
    finally:
        os.close(handle)


def _frame(handle: int, header: InstanceHeader, frame: int, room: HUArray) -> Stored:
    """Read one frame; cells of 16 bits come to lie in ``room``."""
    layout = _layout(header)
    big = header.transfer_syntax_uid == ExplicitVRBigEndian
    size = layout.rows * layout.columns * layout.bits_allocated // 8
    if (frame + 1) * size > layout.length:
        raise _changed(header, f"frame {frame + 1} lies beyond its pixel data")
    offset = layout.offset + frame * size
    if layout.bits_allocated != 16:
        raw = np.empty(size, dtype=np.uint8)
        _read_all(handle, raw.data, offset, header)
        return raw.view(pixel_dtype(layout, big_endian=big)).reshape(room.shape)
    _read_all(handle, room.reshape(-1).view(np.uint8).data, offset, header)
    cells = room.view(np.uint16)
    if big is (sys.byteorder == "little"):
        cells.byteswap(inplace=True)
    return unpack_bits(
        cells, bits_stored=layout.bits_stored, high_bit=layout.high_bit, signed=layout.pixel_representation == 1
    )


def _layout(header: InstanceHeader) -> PixelLayout:
    if header.pixels is None or header.pixels.offset < 0:
        raise ValueError("the pixels of this instance are not native")
    return header.pixels


def pixel_dtype(layout: PixelLayout, *, big_endian: bool = False) -> np.dtype[np.generic]:
    """Type of a native cell as it lies in the file."""
    kind = "i" if layout.pixel_representation == 1 else "u"
    return np.dtype(f"{'>' if big_endian else '<'}{kind}{layout.bits_allocated // 8}")


def _read_all(handle: int, buffer: memoryview, offset: int, header: InstanceHeader) -> None:
    done = 0
    while done < len(buffer):
        count = os.preadv(handle, [buffer[done:]], offset + done)
        if count == 0:
            raise _changed(header, f"its file ends {len(buffer) - done} bytes early")
        done += count


def _check_element(handle: int, header: InstanceHeader) -> None:
    """Pixel Data's own tag and length must still stand right before its value."""
    layout = _layout(header)
    order = ">" if header.transfer_syntax_uid == ExplicitVRBigEndian else "<"
    before = os.pread(handle, 12, max(layout.offset - 12, 0))
    if len(before) == 12:
        # Explicit VR: tag, VR, two bytes, length. Implicit VR: tag, length.
        tags = {struct.unpack_from(f"{order}HH", before, 0), struct.unpack_from(f"{order}HH", before, 4)}
        if _PIXEL_DATA in tags and struct.unpack_from(f"{order}I", before, 8)[0] == layout.length:
            return
    raise _changed(header, "its pixel data are not where they were")


def _changed(header: InstanceHeader, what: str) -> InputRejected:
    return InputRejected(
        Reason.UNDECODABLE,
        f"instance {header.sop_instance_uid} is not the file that was indexed: {what}; send it again",
    )
