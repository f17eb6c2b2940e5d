"""What passes between a process and its decode server: requests over a Unix socket, answers through a pipe."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from dataclasses import dataclass
from typing import BinaryIO

from m3node.imaging.decode import Job
from m3node.imaging.shared import Shape
from m3node.rejection import Reason

_LENGTH = struct.Struct("<Q")

_MESSAGE_LENGTH = 2000
"""An answer must fit PIPE_BUF (4096): only then no other decoder's gets into its middle (pipe(7))."""

Failure = tuple[Reason, str]


@dataclass(frozen=True, slots=True)
class Request:
    """A volume to decode: its shape, what goes into it, and by how many decoders."""

    shape: Shape
    jobs: tuple[Job, ...]
    decoders: int


def send_request(connection: socket.socket, request: Request, volume: int, answers: int) -> None:
    """Send a request, with the descriptors of the volume's memory and of the pipe for the answers."""
    pickled = pickle.dumps(request)
    socket.send_fds(connection, [_LENGTH.pack(len(pickled))], [volume, answers])
    connection.sendall(pickled)


def receive_request(connection: socket.socket) -> tuple[Request, int, int]:
    """Wait for a request and its two descriptors.

    Raises
    ------
    EOFError
        Nobody is at the other end any more.
    """
    head, handles, _, _ = socket.recv_fds(connection, _LENGTH.size, 2)
    if len(head) < _LENGTH.size:
        raise EOFError
    pickled = bytearray(_LENGTH.unpack(head)[0])
    rest = memoryview(pickled)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    request: Request = pickle.loads(pickled)
    volume, answers = handles
    return request, volume, answers


def send_answer(pipe: int, frames: int, failure: Failure | None) -> None:
    """Say that so many frames were decoded, or why not."""
    if failure is not None:
        failure = (failure[0], failure[1][:_MESSAGE_LENGTH])
    os.write(pipe, pickle.dumps((frames, failure)))


def next_answer(pipe: BinaryIO) -> tuple[int, Failure | None]:
    """Wait for what `send_answer` sent.

    Raises
    ------
    EOFError
        There is no decoder left.
    """
    answer: tuple[int, Failure | None] = pickle.load(pipe)
    return answer
