"""Decodes in several processes at once.

The codecs hold the interpreter's lock, so threads would take turns; and a codec that crashes on a damaged stream takes
a worker with it and not the node. Workers are plain children that read batches from their standard input: they end when
it does, however the parent ended, and nothing of the parent's is imported or inherited but the volume's memory.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue

from m3node.errors import InputRejected
from m3node.imaging.decode import Job
from m3node.imaging.shared import SharedVolume
from m3node.rejection import Reason

_FRAMES_A_BATCH = 4

Batch = list[Job]


def decode_in_processes(
    jobs: Sequence[Job], volume: SharedVolume, workers: int, advance: Callable[[int], None]
) -> None:
    """Decode into a shared volume.

    Parameters
    ----------
    jobs : sequence of Job
        What to decode.
    volume : SharedVolume
        Open.
    workers : int
        Processes at most.
    advance : callable
        Called with the number of frames of each finished batch, from several threads.

    Raises
    ------
    InputRejected
        ``UNDECODABLE``: also when a codec crashed.
    """
    batches: SimpleQueue[Batch] = SimpleQueue()
    made = _batches(jobs)
    for batch in made:
        batches.put(batch)

    def drive(worker: subprocess.Popen[bytes]) -> None:
        with suppress(Empty):
            while True:
                advance(_decode(worker, batches.get_nowait()))

    with ExitStack() as stack:
        children = [stack.enter_context(_worker(volume)) for _ in range(min(workers, len(made)))]
        with ThreadPoolExecutor(len(children)) as pool:
            runs = [pool.submit(drive, child) for child in children]
            try:
                for run in runs:
                    run.result()
            except BaseException:
                with suppress(Empty):
                    while True:
                        batches.get_nowait()
                raise


def _batches(jobs: Sequence[Job]) -> list[Batch]:
    """Cut the work into pieces of some frames: part of a multi-frame instance, or several single-frame ones."""
    batches: list[Batch] = []
    frames = 0
    for path, header, tasks in jobs:
        for first in range(0, len(tasks), _FRAMES_A_BATCH):
            part = tasks[first : first + _FRAMES_A_BATCH]
            if not batches or frames + len(part) > _FRAMES_A_BATCH:
                batches.append([])
                frames = 0
            batches[-1].append((path, header, part))
            frames += len(part)
    return batches


@contextmanager
def _worker(volume: SharedVolume) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C is the parent's to answer.
    worker = subprocess.Popen(
        [sys.executable, "-m", "m3node.imaging.decode_worker", str(volume.handle), *map(str, volume.shape)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(volume.handle,),
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # NumPy would start threads that nothing here uses
    )
    try:
        yield worker
    finally:
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # a batch that a dead worker never read
                    pipe.close()
        worker.wait()


def _decode(worker: subprocess.Popen[bytes], batch: Batch) -> int:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("the worker was started without pipes")
    try:
        pickle.dump(batch, worker.stdin)
        worker.stdin.flush()
        failure: tuple[Reason, str] | None = pickle.load(worker.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        raise InputRejected(
            Reason.UNDECODABLE,
            f"a codec crashed on series {batch[0][1].series_instance_uid}: its pixels are damaged; send it again",
        ) from error
    if failure is not None:
        raise InputRejected(*failure)
    return sum(len(tasks) for _, _, tasks in batch)
