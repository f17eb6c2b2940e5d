"""Says a case to a node, and hears what comes of it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fuzzing.case import Case, Hear, Say, Way
from fuzzing.upper_layer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RP

Connect = Callable[[Way], socket.socket]

_NAMES = {ASSOCIATE_AC: "accepted", ASSOCIATE_RJ: "rejected", RELEASE_RP: "released", ABORT: "aborted"}
_STATUS = 0x0900


@dataclass(slots=True)
class Heard:
    """What came of a case.

    Attributes
    ----------
    answers : list of str
        Each PDU in a word; of a response, its status.
    stored : list of str
        What the node has promised to keep (`fuzzing.case.digest`).
    said : int
        Steps that were said before the node ended the connection.
    hung : str
        What was waited for in vain; empty when nothing.
    """

    answers: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    said: int = 0
    hung: str = ""


def perform(case: Case, connect: Connect) -> Heard:
    """Say a case over a connection of its own, whose timeout says how long a node may keep a peer waiting."""
    heard = Heard()
    try:
        connection = connect(case.way)
    except TimeoutError:
        heard.hung = "no connection"
        return heard
    except OSError:
        heard.answers.append("closed")
        return heard
    with connection:
        try:
            for step in case.steps:
                if isinstance(step, Say):
                    connection.sendall(step.data)
                    heard.said += 1
                elif not _hear(connection, step, heard):
                    break
            _leave(connection, case, heard)
        except TimeoutError:
            heard.hung = f"after {heard.said} messages and {', '.join(heard.answers) or 'no answer'}"
        except OSError:
            heard.answers.append("closed")
    return heard


def _leave(connection: socket.socket, case: Case, heard: Heard) -> None:
    if case.end == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if case.end == "half" and case.way == "TLS":
        return
    if case.end == "half":
        connection.shutdown(socket.SHUT_WR)
    if case.end in ("half", "silent"):
        if case.way == "raw":
            while connection.recv(65536):
                pass
            return
        while True:
            _hear(connection, Hear(), heard)  # until the connection ends


def _hear(connection: socket.socket, step: Hear, heard: Heard) -> bool:
    """Take in a PDU; False when it is the last one."""
    kind, body = read_pdu(connection)
    status = status_of(body) if kind == DATA else None
    heard.answers.append(_NAMES.get(kind, f"PDU {kind}") if status is None else f"{status:04X}")
    if status == 0 and step.stored:
        heard.stored.append(step.stored)
    return kind not in (ASSOCIATE_RJ, ABORT)


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Read one PDU of the node's: its type, and what is behind its length.

    Raises
    ------
    ConnectionError
        The connection has ended.
    """
    kind, _, length = struct.unpack(">BBL", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


def status_of(body: bytes) -> int | None:
    """The status of a response; None of anything else."""
    at = 6  # behind the head of the only presentation data value item
    with suppress(struct.error):
        while at < len(body):
            group, number, length = struct.unpack_from("<HHL", body, at)
            at += 8
            if (group, number) == (0, _STATUS):
                return int(struct.unpack_from("<H", body, at)[0])
            at += length
    return None
