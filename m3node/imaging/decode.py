"""Decodes encapsulated and deflated pixels into the volume: in other processes when there are many.

The codecs hold the interpreter's lock, so threads would take turns; and a codec that crashes on a damaged stream takes
a worker process with it and not the node. The volume lies in memory that all of them map: a pixel is copied once.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian

from m3node.errors import InputRejected
from m3node.imaging.native import FrameTask, pixel_dtype
from m3node.imaging.rescale import Stored, unpack_bits, write_hu
from m3node.imaging.volume import HUArray
from m3node.intake.header import InstanceHeader, PixelLayout
from m3node.intake.part10 import PARSER_ERRORS, open_part10
from m3node.rejection import Reason

CODEC_ERRORS = (*PARSER_ERRORS, RuntimeError, OSError)
"""What pydicom and the codecs raise on a stream that they cannot decode."""

_PR_SET_PDEATHSIG = 1
_FRAMES_A_CALL = 8
_PIXEL_TAGS = (0x00280010,)

Job = tuple[Path, InstanceHeader, tuple[FrameTask, ...]]


def decode_frames(path: Path, header: InstanceHeader, frames: Sequence[int]) -> list[Stored]:
    """Decode frames of one encapsulated or deflated instance to their stored values.

    Parameters
    ----------
    path : Path
        The file.
    header : InstanceHeader
        Its header.
    frames : sequence of int
        Which frames, from 0.

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
            planes = _encapsulated(path, header, layout, frames)
    except InputRejected as error:
        raise InputRejected(Reason.UNDECODABLE, f"instance {header.sop_instance_uid}: {error.message}") from error
    except CODEC_ERRORS as error:
        raise _undecodable(header) from error
    if any(plane.shape != (layout.rows, layout.columns) for plane in planes):
        raise _undecodable(header)
    return planes


def decode_into(jobs: Sequence[Job], hu: HUArray, advance: Callable[[int], None]) -> None:
    """Decode in this process."""
    for path, header, tasks in jobs:
        _decode_job(path, header, tasks, hu)
        advance(len(tasks))


def decode_in_processes(
    jobs: Sequence[Job], hu: HUArray, memory: SharedMemory, workers: int, advance: Callable[[int], None]
) -> None:
    """Decode in ``workers`` other processes, which write to the same memory.

    Raises
    ------
    InputRejected
        ``UNDECODABLE``: also when a codec crashed.
    """
    calls = [
        (path, header, tasks[first : first + _FRAMES_A_CALL])
        for path, header, tasks in jobs
        for first in range(0, len(tasks), _FRAMES_A_CALL)
    ]
    step = max(1, _FRAMES_A_CALL // max(1, min(len(tasks) for _, _, tasks in calls)))
    batches = [calls[first : first + step] for first in range(0, len(calls), step)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(
        min(workers, len(batches)),
        mp_context=context,
        initializer=_attach,
        initargs=(os.getpid(), memory.handle, hu.shape),
    ) as pool:
        try:
            futures = [pool.submit(_decode_batch, batch) for batch in batches]
            for future in as_completed(futures):
                done, failure = future.result()
                if failure is not None:
                    pool.shutdown(cancel_futures=True)
                    raise InputRejected(*failure)
                advance(done)
        except BrokenProcessPool as error:
            raise InputRejected(
                Reason.UNDECODABLE,
                f"a codec crashed on series {jobs[0][1].series_instance_uid}: its pixels are damaged; send it again",
            ) from error


class SharedMemory:
    """Anonymous memory that worker processes can map; it needs no room in /dev/shm, which containers keep small."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.handle = os.memfd_create("m3node-volume", os.MFD_CLOEXEC)
        os.ftruncate(self.handle, max(1, 2 * int(np.prod(shape))))
        self.array = _map(self.handle, shape)

    def close(self) -> None:
        """Let no more processes in; the array stays valid as long as it is held."""
        os.close(self.handle)


def _map(handle: int, shape: tuple[int, int, int]) -> HUArray:
    memory = mmap.mmap(handle, max(1, 2 * int(np.prod(shape))))
    return np.frombuffer(memory, dtype=np.int16).reshape(shape)


_attached: list[HUArray] = []
"""In a worker process: the parent's volume."""


def _attach(process: int, handle: int, shape: tuple[int, int, int]) -> None:
    # The server that forks workers ends with the process that asked for them, however that ends; so must they.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the asking process answers it
    own = os.open(f"/proc/{process}/fd/{handle}", os.O_RDWR)
    try:
        _attached[:] = [_map(own, shape)]
    finally:
        os.close(own)


def _decode_batch(batch: Sequence[Job]) -> tuple[int, tuple[Reason, str] | None]:
    """Runs in a worker process; a failure is returned, since an exception with two arguments does not pickle."""
    done = 0
    for path, header, tasks in batch:
        try:
            _decode_job(path, header, tasks, _attached[0])
        except InputRejected as error:
            return done, (error.reason, error.message)
        done += len(tasks)
    return done, None


def _decode_job(path: Path, header: InstanceHeader, tasks: Sequence[FrameTask], hu: HUArray) -> None:
    planes = decode_frames(path, header, [task.frame for task in tasks])
    for task, plane in zip(tasks, planes, strict=True):
        write_hu(plane, task.slope, task.intercept, hu[task.slice_index])


def _encapsulated(path: Path, header: InstanceHeader, layout: PixelLayout, frames: Sequence[int]) -> list[Stored]:
    opened = open_part10(path, name="its file", tags=_PIXEL_TAGS, digest=False)
    decoder = get_decoder(header.transfer_syntax_uid)
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
    planes: list[Stored] = []
    with open(path, "rb") as stream:
        for frame in frames:
            stream.seek(opened.value_offset)
            plane, _ = decoder.as_array(stream, index=frame, **options)
            planes.append(plane)
    return planes


def _deflated(path: Path, layout: PixelLayout, frames: Sequence[int]) -> list[Stored]:
    pixels = pydicom.dcmread(path, force=True).get_item(0x7FE00010)
    value = pixels.value
    size = layout.rows * layout.columns * layout.bits_allocated // 8
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
