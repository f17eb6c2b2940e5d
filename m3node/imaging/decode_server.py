"""A process that has what decoding needs imported, and forks decoders; `m3node.imaging.decode_client` starts it.

Usage: ``python -m m3node.imaging.decode_server``, with one end of a Unix socket as standard input. A byte goes out when
it is ready, and another one for each request that it takes. It has one thread, so that it can fork. It ends, and its
decoders with it, when the other end does, and when nothing was asked for `WAITS_SECONDS`.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
from contextlib import suppress

from m3node.errors import InputRejected
from m3node.imaging.decode import decode_into
from m3node.imaging.decode_request import Request, receive_request, send_answer
from m3node.imaging.shared import map_volume
from m3node.process import die_with_parent

WAITS_SECONDS = 120.0
"""The next series of a study comes sooner; after that its memory, some tens of megabytes, is somebody else's."""

_READY = b"."
_INDEX_BYTES = 4


def main() -> None:
    """Serve until nobody is there, or nobody asks."""
    os.dup2(2, 1)  # a codec may print what it likes
    gc.freeze()  # looking through what was imported would only copy its pages in every decoder
    with socket.socket(fileno=os.dup(0)) as connection, suppress(ConnectionError, EOFError):
        connection.sendall(_READY)
        while select.select([connection], [], [], WAITS_SECONDS)[0]:
            request, volume, answers = receive_request(connection)
            connection.sendall(_READY)
            queue = _queue(len(request.jobs))
            count = min(request.decoders, len(request.jobs))
            decoders = [_fork(request, queue, volume, answers) for _ in range(count)]
            for handle in (volume, answers):
                os.close(handle)
            _wait(decoders, queue, connection)
            os.close(queue)


def _queue(jobs: int) -> int:
    """Make a file of the indices of all jobs; decoders that inherit it share its position."""
    queue = os.memfd_create("m3node-jobs", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(queue), "wb") as file:
        file.write(b"".join(index.to_bytes(_INDEX_BYTES, "little") for index in range(jobs)))
    os.lseek(queue, 0, os.SEEK_SET)
    return queue


def _fork(request: Request, queue: int, volume: int, answers: int) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent(server)
        _work(request, queue, volume, answers)
        status = 0
    except InputRejected as error:
        send_answer(answers, 0, (error.reason, error.message))
    finally:
        # Without the server's exit handlers. No word about an error of another kind: it may quote the patient, and
        # the parent notices that the job is missing.
        os._exit(status)


def _work(request: Request, queue: int, volume: int, answers: int) -> None:
    hu = map_volume(volume, request.shape)
    while index := _next(queue):
        job = request.jobs[int.from_bytes(index, "little")]
        decode_into([job], hu, lambda _: None, single_threaded=True)
        send_answer(answers, len(job[2]), None)


def _next(queue: int) -> bytes:
    """Read an index that no other decoder reads; empty at the end."""
    # Unlike other files, one of memory is read from by two at the same position. The kernel takes the lock from the
    # dead.
    fcntl.lockf(queue, fcntl.LOCK_EX)
    try:
        return os.read(queue, _INDEX_BYTES)
    finally:
        fcntl.lockf(queue, fcntl.LOCK_UN)


def _wait(decoders: list[int], queue: int, connection: socket.socket) -> None:
    """Wait until no decoder is left; where one failed or the parent has gone, the others have no more to do."""
    alive = {os.pidfd_open(pid): pid for pid in decoders}
    poll = select.poll()
    for handle in (connection.fileno(), *alive):
        poll.register(handle, select.POLLIN)
    while alive:
        for handle, _ in poll.poll():
            poll.unregister(handle)
            if handle == connection.fileno():
                for pid in alive.values():
                    os.kill(pid, signal.SIGKILL)
                continue
            os.close(handle)
            _, status = os.waitpid(alive.pop(handle), 0)
            if status:
                os.ftruncate(queue, 0)


if __name__ == "__main__":
    main()
