"""A manifest in, a volume in HU out: each pixel is brought into one int16 array once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from m3node.errors import InputRejected
from m3node.imaging.decode import Job, decode_into, may_end_its_process
from m3node.imaging.decode_pool import decode_in_processes
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.memory import VolumeMemory
from m3node.imaging.native import FrameTask, read_native
from m3node.imaging.volume import CTVolume, HUArray, SliceSource
from m3node.intake.series.header import FrameHeader, InstanceHeader, PixelLayout
from m3node.intake.series.manifest import Manifest
from m3node.intake.series.sop_classes import MULTI_FRAME_CT
from m3node.rejection import Reason

PROCESSES_FROM = 64
"""Compressed frames from which starting other processes pays."""

_BATCH = 8
"""Frames that a thread reads at a time."""

_READING_THREADS = 2
"""More were slower where it was measured: what is read lies in the page cache, and memory is the limit."""

_SHARES_A_THREAD = 4
"""Few, so that threads seldom meet; more than one, so that none waits long for the last."""

_STAGE = "reading the volume"

_MEMORY = VolumeMemory()


def assemble(
    manifest: Manifest, *, workers: int | None = None, progress: Callable[[str, int, int], None] | None = None
) -> CTVolume:
    """Read the pixels of a manifest's slices as one volume.

    Native pixels are read by threads at the offsets that the headers hold, straight into the array; encapsulated ones
    are decoded by processes. Beside the array, a slice a worker is all the memory that is needed.

    Parameters
    ----------
    manifest : Manifest
        A fit stack.
    workers : int, optional
        Threads or processes; the number of cores, at most 8, by default. 1 keeps all work in this process, but for what
        a codec may end it over.
    progress : callable, optional
        Called with (stage, slices done, slices in all), from any thread.

    Returns
    -------
    CTVolume
        Slices in manifest order; HU rounded to int16 and clipped to its range.

    Raises
    ------
    InputRejected
        ``UNDECODABLE`` names the instance that cannot be decoded or has changed since it was indexed;
        ``MISSING_GEOMETRY``, ``MIXED_GEOMETRY``, ``NO_PIXEL_DATA`` and ``UNSUPPORTED_PIXELS`` a stack that was not
        judged.
    """
    workers = workers or min(8, len(os.sched_getaffinity(0)))
    geometry = geometry_of(manifest)
    root = Path(manifest.root)
    native: list[Job] = []
    coded: list[Job] = []
    for header, tasks in _tasks(manifest):
        layout = _layout(header)
        (native if layout.offset >= 0 else coded).append((root / header.path, header, tasks))
    advance = _counter(len(manifest.slices), progress)
    coded_frames = sum(len(tasks) for _, _, tasks in coded)
    if (workers > 1 and coded_frames >= PROCESSES_FROM) or any(may_end_its_process(header) for _, header, _ in coded):
        shared = _MEMORY.shared(geometry.shape)
        hu = shared.hu
        try:
            decode_in_processes(coded, shared, workers, advance)
        finally:
            shared.close()
    else:
        hu = _MEMORY.empty(geometry.shape)
        decode_into(coded, hu, advance)
    _read_native(native, hu, workers, advance)
    hu.flags.writeable = False
    return CTVolume(hu=hu, geometry=geometry, sources=_sources(manifest))


def read_slices(manifest: Manifest, slices: Sequence[int]) -> HUArray:
    """Read the pixels of a few of a manifest's slices, in this process.

    Parameters
    ----------
    manifest : Manifest
        A fit stack.
    slices : sequence of int
        Which, each once, from 0.

    Returns
    -------
    ndarray of int16, shape (len(slices), rows, columns)
        HU, in the order of ``slices``.

    Raises
    ------
    InputRejected
        As `assemble` does.
    """
    layout = _layout(manifest.instances[0])
    hu = np.empty((len(slices), layout.rows, layout.columns), dtype=np.int16)
    place = {k: index for index, k in enumerate(slices)}
    native: list[Job] = []
    coded: list[Job] = []
    for header, tasks in _tasks(manifest):
        wanted = tuple(
            replace(task, slice_index=place[task.slice_index]) for task in tasks if task.slice_index in place
        )
        if wanted:
            job = (Path(manifest.root) / header.path, header, wanted)
            (native if _layout(header).offset >= 0 else coded).append(job)
    decode_into(coded, hu, _nothing)
    _read_native(native, hu, 1, _nothing)
    return hu


def _nothing(_count: int) -> None:
    """Nobody waits for a few slices."""


def geometry_of(manifest: Manifest) -> PatientGeometry:
    """Lay the grid of a manifest's slices into the patient.

    The slice axis of the affine runs from the first to the last Image Position (Patient), evenly divided; a stack of
    one slice takes its normal and thickness.

    Raises
    ------
    InputRejected
        ``MISSING_GEOMETRY`` or ``NO_PIXEL_DATA``.
    """
    frames = [manifest.instances[ref.instance].frames[ref.frame] for ref in manifest.slices]
    layout = _layout(manifest.instances[0])
    first = frames[0]
    if first.orientation is None or first.pixel_spacing is None or any(frame.position is None for frame in frames):
        raise InputRejected(
            Reason.MISSING_GEOMETRY,
            f"series {manifest.stack.series_instance_uid} lacks position, orientation or pixel spacing",
        )
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    row, column = np.asarray(first.orientation[:3]), np.asarray(first.orientation[3:])
    affine = np.eye(4)
    affine[:3, 0] = _step(positions, np.cross(row, column), first)
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 2] = row * first.pixel_spacing[1]
    affine[:3, 3] = positions[0]
    return PatientGeometry(affine=affine, positions=positions, shape=(len(frames), layout.rows, layout.columns))


def _step(positions: np.ndarray, normal: np.ndarray, first: FrameHeader) -> np.ndarray:
    if len(positions) > 1:
        return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1))
    return normal * (first.slice_thickness or 1.0)


def _tasks(manifest: Manifest) -> list[tuple[InstanceHeader, tuple[FrameTask, ...]]]:
    by_instance: dict[int, list[FrameTask]] = {}
    for k, ref in enumerate(manifest.slices):
        header = manifest.instances[ref.instance]
        frame = header.frames[ref.frame]
        if frame.rescale_slope is None or frame.rescale_intercept is None:
            raise InputRejected(
                Reason.UNSUPPORTED_PIXELS, f"instance {header.sop_instance_uid} has no rescale to Hounsfield units"
            )
        by_instance.setdefault(ref.instance, []).append(
            FrameTask(k, ref.frame, frame.rescale_slope, frame.rescale_intercept)
        )
    reference = _layout(manifest.instances[0])
    for header in manifest.instances:
        layout = _layout(header)
        if (layout.rows, layout.columns) != (reference.rows, reference.columns):
            raise InputRejected(
                Reason.MIXED_GEOMETRY,
                f"instance {header.sop_instance_uid} has {layout.rows}×{layout.columns} pixels, "
                f"others {reference.rows}×{reference.columns}",
            )
    return [(manifest.instances[index], tuple(tasks)) for index, tasks in by_instance.items()]


def _layout(header: InstanceHeader) -> PixelLayout:
    layout = header.pixels
    if layout is None:
        raise InputRejected(Reason.NO_PIXEL_DATA, f"instance {header.sop_instance_uid} has no pixel data")
    if layout.samples_per_pixel != 1 or layout.bits_allocated not in {8, 16, 32}:
        raise InputRejected(
            Reason.UNSUPPORTED_PIXELS,
            f"instance {header.sop_instance_uid} has {layout.samples_per_pixel} samples a pixel of "
            f"{layout.bits_allocated} bits; a CT has one of 8, 16 or 32",
        )
    return layout


def _read_native(jobs: Sequence[Job], hu: HUArray, workers: int, advance: Callable[[int], None]) -> None:
    def read(share: Sequence[Job]) -> None:
        room = np.empty(hu.shape[1:], dtype=np.int16)
        for path, header, tasks in share:
            read_native(path, header, tasks, hu, room)
            advance(len(tasks))

    # A multi-frame instance is read in parts, so that all threads have work.
    parts = [
        (path, header, tasks[first : first + 16]) for path, header, tasks in jobs for first in range(0, len(tasks), 16)
    ]
    threads = min(workers, _READING_THREADS, len(parts))
    if threads < 2:
        read(parts)
        return
    size = -(-len(parts) // (threads * _SHARES_A_THREAD))
    shares = [parts[first : first + size] for first in range(0, len(parts), size)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read, shares):
            pass


def _counter(total: int, progress: Callable[[str, int, int], None] | None) -> Callable[[int], None]:
    done = 0
    lock = Lock()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(_STAGE, done, total)

    return advance


def _sources(manifest: Manifest) -> tuple[SliceSource, ...]:
    sources: list[SliceSource] = []
    for ref in manifest.slices:
        header = manifest.instances[ref.instance]
        number = header.frames[ref.frame].number if header.sop_class_uid in MULTI_FRAME_CT else None
        sources.append(SliceSource(header.sop_class_uid, header.sop_instance_uid, number))
    return tuple(sources)
