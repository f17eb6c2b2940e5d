"""Decodes in several processes at once.

The codecs hold the interpreter's lock, so threads would take turns; and a codec that crashes on a damaged stream takes
a process with it and not the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from m3node.errors import InputRejected
from m3node.imaging.decode import Job
from m3node.imaging.decode_client import DecodeServer, lay_by, waiting_server
from m3node.imaging.decode_request import Failure, next_answer
from m3node.imaging.shared import SharedVolume
from m3node.rejection import Reason

_FRAMES_A_PIECE = 4
"""Of a multi-frame instance: fewer would open its file too often, more would let all wait for the last piece."""


def decode_in_processes(
    jobs: Sequence[Job], volume: SharedVolume, workers: int, advance: Callable[[int], None]
) -> None:
    """Decode into a shared volume.

    Parameters
    ----------
    jobs : sequence of Job
        What to decode.
    volume : SharedVolume
        Open. When this returns or raises, no process writes to it any more.
    workers : int
        Processes at most.
    advance : callable
        Called with the number of frames decoded since the last call.

    Raises
    ------
    InputRejected
        ``UNDECODABLE``: also when a codec crashed.
    OSError
        No process can be started.
    """
    pieces = _pieces(jobs)
    server, answers = _asked(volume, pieces, workers)
    with answers:
        try:
            missing, failure = _follow(answers, sum(len(tasks) for _, _, tasks in pieces), advance)
        except BaseException:
            server.close()
            while answers.read(1024):  # its decoders hold the other end for as long as they live
                pass
            raise
    lay_by(server)
    if failure is not None:
        raise InputRejected(*failure)
    if missing:
        raise InputRejected(
            Reason.UNDECODABLE,
            f"a codec crashed on series {jobs[0][1].series_instance_uid}: its pixels are damaged; send it again",
        )


def _pieces(jobs: Sequence[Job]) -> list[Job]:
    """Cut the work so that everybody has some to the end: single instances, and parts of multi-frame ones."""
    return [
        (path, header, tasks[first : first + _FRAMES_A_PIECE])
        for path, header, tasks in jobs
        for first in range(0, len(tasks), _FRAMES_A_PIECE)
    ]


def _asked(volume: SharedVolume, pieces: list[Job], workers: int) -> tuple[DecodeServer, BinaryIO]:
    """Ask the server that waits; where it has just ended, for having waited too long, or is not there, a new one."""
    for waiting in (True, False):
        server = waiting_server() if waiting else DecodeServer()
        if server is not None:
            # Its imports take as long as clearing memory does.
            volume.populate(until=server.is_ready)
            answers = server.ask(volume, pieces, workers)
            if answers is not None:
                return server, answers
            server.close()
    raise ChildProcessError("the decode server did not start")


def _follow(answers: BinaryIO, frames: int, advance: Callable[[int], None]) -> tuple[int, Failure | None]:
    """Read answers until no decoder lives; return how many frames nobody answered for, and the first failure."""
    first: Failure | None = None
    while True:
        try:
            done, failure = next_answer(answers)
        except EOFError:
            return frames, first
        first = first or failure
        frames -= done
        if done:
            advance(done)
