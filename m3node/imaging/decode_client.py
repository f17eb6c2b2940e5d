"""This process's side of a decode server: starting it, asking it, and keeping it for the next series.

Starting one costs about half a second, most of it imports. It ends by itself when this process does, however that
ends, or when it has waited for a while; see `m3node.imaging.decode_server`.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import BinaryIO

from m3node.imaging.decode import Job
from m3node.imaging.decode_request import Request, send_request
from m3node.imaging.shared import SharedVolume

_SECONDS_TO_END = 5.0

_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # NumPy would start threads, which nothing here uses and which a fork would lose
    # OpenJPEG takes some megabytes for a slice and frees them; glibc would give them back to the kernel each time.
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_TOP_PAD_": "8388608",
}


class DecodeServer:
    """A process that forks decoders; it is started at once, and ready some time later.

    Attributes
    ----------
    pid : int
        Its process id.
    """

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C is the parent's to answer.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "m3node.imaging.decode_server"],
                stdin=theirs.fileno(),
                start_new_session=True,
                env=dict(os.environ) | _ENVIRONMENT,
            )
        self.pid = self._process.pid
        self._greeted = False

    def is_ready(self) -> bool:
        """Whether a request would be answered at once, if only with an error."""
        return self._greeted or bool(select.select([self._connection], [], [], 0.0)[0])

    def ask(self, volume: SharedVolume, jobs: Sequence[Job], decoders: int) -> BinaryIO | None:
        """Have jobs decoded.

        Returns
        -------
        file or None
            For `next_answer`, one answer a job; it ends when no decoder is left. None when the server has ended before
            it took the request.
        """
        request = Request((volume.hu.shape[0], volume.hu.shape[1], volume.hu.shape[2]), tuple(jobs), decoders)
        reading, writing = os.pipe()
        try:
            self._greeted = self._greeted or self._hears()
            send_request(self._connection, request, volume.handle, writing)
            taken = self._hears()
        except ConnectionError:
            taken = False
        finally:
            os.close(writing)
        if taken:
            return os.fdopen(reading, "rb")
        os.close(reading)
        return None

    def close(self) -> None:
        """End it, and its decoders if it has any."""
        self._connection.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Leave it to the process that started it: this one is a fork."""
        self._connection.close()

    def _hears(self) -> bool:
        return bool(self._connection.recv(1))


_waiting: SimpleQueue[DecodeServer] = SimpleQueue()


def waiting_server() -> DecodeServer | None:
    """Take the server that waits for the next series, if there is one; nobody else gets it until it is laid by."""
    try:
        return _waiting.get_nowait()
    except Empty:
        return None


def lay_by(server: DecodeServer) -> None:
    """Keep a server for the next series, or end it where another one waits already."""
    if _waiting.empty():
        _waiting.put(server)
    else:
        server.close()


def close_waiting() -> None:
    """End the server that waits, if there is one."""
    while (server := waiting_server()) is not None:
        server.close()


def _forget_waiting() -> None:
    while (server := waiting_server()) is not None:
        server.forget()


atexit.register(close_waiting)
os.register_at_fork(after_in_child=_forget_waiting)
