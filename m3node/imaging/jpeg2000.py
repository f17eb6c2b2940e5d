"""Decodes JPEG 2000 frames whose codestream says the same of its samples as the header does.

That is how scanners and archives write them, and OpenJPEG's answer then is the frame. pydicom, which gives the same
frame, takes half a millisecond more to find and look at it; whatever is odd is left to it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

import numpy as np
from openjpeg.utils import decode_pixel_data

from m3node.imaging.rescale import Stored
from m3node.intake.series.header import PixelLayout

_ITEM, _DELIMITER = 0xE000FFFE, 0xE0DDFFFE
_ITEM_HEAD = struct.Struct("<II")

_CODESTREAM = 0xFF4FFF51
"""SOC, and SIZ right behind it: no JP2 boxes around."""

_SIZ = struct.Struct(">I2x2x4I16xHBBB")
"""From SOC: Xsiz, Ysiz, XOsiz, YOsiz, Csiz and the first component's Ssiz, XRsiz, YRsiz (ISO/IEC 15444-1, A.5.1)."""


def decode_as_announced(handle: int, value_offset: int, layout: PixelLayout, frames: Sequence[int]) -> list[Stored]:
    """Decode frames of one instance where nothing about them is out of the ordinary.

    Parameters
    ----------
    handle : int
        Descriptor of the open file.
    value_offset : int
        Where the value of Pixel Data begins in it.
    layout : PixelLayout
        From the file's header.
    frames : sequence of int
        Which frames, from 0.

    Returns
    -------
    list of ndarray of int, shape (rows, columns)
        As many of the first of ``frames`` as are ordinary: of one fragment each, with samples as the header says, and
        not damaged as far as OpenJPEG sees.
    """
    planes: list[Stored] = []
    fragments = _fragments(handle, value_offset, layout.number_of_frames)
    if len(fragments) != layout.number_of_frames:
        return planes
    for offset, length in (fragments[frame] for frame in frames):
        coded = os.pread(handle, length, offset)
        if len(coded) < length or not _says_the_same(coded, layout):
            break
        try:
            decoded = decode_pixel_data(coded, version=2)
        except RuntimeError:
            break
        kind = "i" if layout.pixel_representation else "u"
        plane = np.frombuffer(decoded, f"{kind}{layout.bits_allocated // 8}")
        planes.append(plane.reshape(layout.rows, layout.columns))
    return planes


def _fragments(handle: int, offset: int, most: int) -> list[tuple[int, int]]:
    """Find the fragments behind the Basic Offset Table (PS3.5 A.4), at most one more than ``most``."""
    found: list[tuple[int, int]] = []
    while len(found) <= most + 1:
        head = os.pread(handle, _ITEM_HEAD.size, offset)
        if len(head) < _ITEM_HEAD.size:
            return []
        tag, length = _ITEM_HEAD.unpack(head)
        if tag != _ITEM:
            return found[1:] if tag == _DELIMITER else []
        offset += _ITEM_HEAD.size
        found.append((offset, length))
        offset += length
    return found[1:]


def _says_the_same(coded: bytes, layout: PixelLayout) -> bool:
    """Whether the codestream has the header's size, precision and sign, and its samples need all bytes of a cell."""
    if len(coded) < _SIZ.size:
        return False
    start, right, bottom, left, top, components, depth, *steps = _SIZ.unpack_from(coded)
    whole_bytes = -(-layout.bits_stored // 8)
    return bool(
        start == _CODESTREAM
        and (bottom - top, right - left) == (layout.rows, layout.columns)
        and (components, steps) == (1, [1, 1])
        and depth == (layout.bits_stored - 1 | layout.pixel_representation << 7)
        and layout.bits_allocated == 8 * whole_bytes
    )
