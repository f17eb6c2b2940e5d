"""Decodes encapsulated and deflated pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from m3node.errors import InputRejected
from m3node.imaging.jpeg2000 import decode_as_announced
from m3node.imaging.native import FrameTask, pixel_dtype
from m3node.imaging.rescale import Stored, unpack_bits, write_hu
from m3node.imaging.volume import HUArray
from m3node.intake.series.header import InstanceHeader, PixelLayout
from m3node.intake.series.part10 import PARSER_ERRORS, open_part10, read_deflated_pixels
from m3node.rejection import Reason

CODEC_ERRORS = (*PARSER_ERRORS, RuntimeError, OSError)
"""What pydicom and the codecs raise on a stream that they cannot decode."""

_OPENJPEG_ALONE = frozenset((JPEG2000Lossless, JPEG2000))
"""Syntaxes that GDCM, which comes first otherwise, never sees: some damaged streams end its process, and it decodes a
slice on all cores and takes a quarter more time in all."""

_ENDING_PROCESSES = frozenset((JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1))
"""Syntaxes of which GDCM, the only codec for some of them, ends its process over a damaged stream."""

_PIXEL_TAGS = (0x00280010,)

Job = tuple[Path, InstanceHeader, tuple[FrameTask, ...]]
"""A file, its header, and which of its frames go where."""


def may_end_its_process(header: InstanceHeader) -> bool:
    """Whether the codec of an instance is known to end its process over a damaged stream, instead of saying so.

    Not seen with JPEG-LS and RLE.
    """
    return header.transfer_syntax_uid in _ENDING_PROCESSES


def decode_frames(
    path: Path, header: InstanceHeader, frames: Sequence[int], *, single_threaded: bool = False
) -> list[Stored]:
    """Decode frames of one encapsulated or deflated instance to their stored values.

    Parameters
    ----------
    path : Path
        The file.
    header : InstanceHeader
        Its header.
    frames : sequence of int
        Which frames, from 0.
    single_threaded : bool
        Use a codec that stays on one core where there is the choice; right when other processes have the others.

    Returns
    -------
    list of ndarray of int, shape (rows, columns)

    Raises
    ------
    InputRejected
        ``UNDECODABLE``.
    """
    layout = header.pixels
    if layout is None:
        raise InputRejected(Reason.NO_PIXEL_DATA, f"instance {header.sop_instance_uid} has no pixel data")
    try:
        if header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            planes = _deflated(path, layout, frames)
        else:
            planes = _encapsulated(path, header, layout, frames, single_threaded=single_threaded)
    except InputRejected as error:
        raise InputRejected(Reason.UNDECODABLE, f"instance {header.sop_instance_uid}: {error.message}") from error
    except CODEC_ERRORS as error:
        raise _undecodable(header) from error
    if any(plane.shape != (layout.rows, layout.columns) for plane in planes):
        raise _undecodable(header)
    return planes


def decode_into(
    jobs: Sequence[Job], hu: HUArray, advance: Callable[[int], None], *, single_threaded: bool = False
) -> None:
    """Decode in this process, in HU; ``single_threaded`` as for `decode_frames`."""
    for path, header, tasks in jobs:
        planes = decode_frames(path, header, [task.frame for task in tasks], single_threaded=single_threaded)
        for task, plane in zip(tasks, planes, strict=True):
            write_hu(plane, task.slope, task.intercept, hu[task.slice_index])
        advance(len(tasks))


def _encapsulated(
    path: Path, header: InstanceHeader, layout: PixelLayout, frames: Sequence[int], *, single_threaded: bool
) -> list[Stored]:
    opened = open_part10(path, name="its file", tags=_PIXEL_TAGS, digest=False)
    planes: list[Stored] = []
    with open(path, "rb") as stream:
        if single_threaded and header.transfer_syntax_uid in _OPENJPEG_ALONE:
            planes = decode_as_announced(stream.fileno(), opened.value_offset, layout, frames)
        for frame in frames[len(planes) :]:
            stream.seek(opened.value_offset)
            planes.append(_with_pydicom(stream, header.transfer_syntax_uid, layout, frame))
    return planes


def _with_pydicom(stream: BinaryIO, syntax: str, layout: PixelLayout, frame: int) -> Stored:
    """Decode with the codec that pydicom prefers, and with any other where that one gives up."""
    decoder = get_decoder(syntax)
    options: dict[str, Any] = {
        "raw": True,
        "pixel_keyword": "PixelData",
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples_per_pixel,
        "photometric_interpretation": layout.photometric_interpretation,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": layout.pixel_representation,
        "number_of_frames": layout.number_of_frames,
    }
    if syntax in _OPENJPEG_ALONE:
        plane, _ = decoder.as_array(stream, index=frame, decoding_plugin="pylibjpeg", **options)
        return np.asarray(plane)
    plane, _ = decoder.as_array(stream, index=frame, **options)
    return np.asarray(plane)


def _deflated(path: Path, layout: PixelLayout, frames: Sequence[int]) -> list[Stored]:
    size = layout.rows * layout.columns * layout.bits_allocated // 8
    value = read_deflated_pixels(path, name="its file", length=size * (max(frames) + 1))
    planes: list[Stored] = []
    for frame in frames:
        cells = np.frombuffer(value, pixel_dtype(layout), layout.rows * layout.columns, frame * size)
        cells = cells.reshape(layout.rows, layout.columns)
        if layout.bits_allocated == 16:
            cells = unpack_bits(
                cells.astype(np.uint16, copy=True),
                bits_stored=layout.bits_stored,
                high_bit=layout.high_bit,
                signed=layout.pixel_representation == 1,
            )
        planes.append(cells)
    return planes


def _undecodable(header: InstanceHeader) -> InputRejected:
    return InputRejected(
        Reason.UNDECODABLE,
        f"the pixels of instance {header.sop_instance_uid} (transfer syntax {header.transfer_syntax_uid}) cannot be "
        "decoded: they are damaged or cut short; send it again",
    )
