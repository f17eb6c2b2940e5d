"""Reads native pixels straight from file into the volume, at the offsets that the headers hold."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRBigEndian

from m3node.errors import InputRejected
from m3node.imaging.rescale import Stored, unpack_bits, write_hu
from m3node.imaging.volume import HUArray
from m3node.intake.header import InstanceHeader, PixelLayout
from m3node.rejection import Reason

_PIXEL_DATA = (0x7FE0, 0x0010)


@dataclass(frozen=True, slots=True)
class FrameTask:
    """One frame to bring into one slice of the volume."""

    slice_index: int
    frame: int
    slope: float
    intercept: float


def read_native(path: Path, header: InstanceHeader, tasks: Sequence[FrameTask], hu: HUArray) -> None:
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

    Raises
    ------
    InputRejected
        ``UNDECODABLE``: the file is gone, was changed, or is cut short.
    """
    layout = header.pixels
    if layout is None or layout.offset < 0:
        raise ValueError("read_native is for native pixels")
    size = layout.rows * layout.columns * layout.bits_allocated // 8
    big = header.transfer_syntax_uid == ExplicitVRBigEndian
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(header, f"its file cannot be opened ({error.strerror})") from error
    try:
        _check_element(handle, header, layout, big)
        for task in tasks:
            offset = layout.offset + task.frame * size
            plane = hu[task.slice_index]
            if (task.frame + 1) * size > layout.length:
                raise _changed(header, f"frame {task.frame + 1} lies beyond its pixel data")
            if layout.bits_allocated == 16:
                _read_all(handle, plane.reshape(-1).view(np.uint8).data, offset, header)
                cells = plane.view(np.uint16)
                if big is (sys.byteorder == "little"):
                    cells.byteswap(inplace=True)
                stored: Stored = unpack_bits(
                    cells,
                    bits_stored=layout.bits_stored,
                    high_bit=layout.high_bit,
                    signed=layout.pixel_representation == 1,
                )
            else:
                raw = np.empty(size, dtype=np.uint8)
                _read_all(handle, raw.data, offset, header)
                stored = raw.view(pixel_dtype(layout, big_endian=big)).reshape(plane.shape)
            write_hu(stored, task.slope, task.intercept, plane)
    finally:
        os.close(handle)


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


def _check_element(handle: int, header: InstanceHeader, layout: PixelLayout, big: bool) -> None:
    """Pixel Data's own tag and length must still stand right before its value."""
    order = ">" if big else "<"
    before = os.pread(handle, 12, max(layout.offset - 12, 0))
    if len(before) == 12 and layout.offset >= 12:
        tags = {struct.unpack_from(f"{order}HH", before, 0), struct.unpack_from(f"{order}HH", before, 4)}
        if _PIXEL_DATA in tags and struct.unpack_from(f"{order}I", before, 8)[0] == layout.length:
            return
    raise _changed(header, "its pixel data are not where they were")


def _changed(header: InstanceHeader, what: str) -> InputRejected:
    return InputRejected(
        Reason.UNDECODABLE,
        f"instance {header.sop_instance_uid} is not the file that was indexed: {what}; send it again",
    )
