"""What the acceptor says to a receiver arrives in order, and a receiver that does not read holds up nobody."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from multiprocessing import Process
from pathlib import Path

import pytest

from m3node.audit.trail import AuditTrail
from m3node.intake.receive.channel import LARGEST, Message, Word, decoded
from m3node.intake.receive.pool import Pool, Worker
from m3node.settings import Caller, ListenerSettings, Settings

MANY = 5000


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def pool(tmp_path: Path, selector: selectors.BaseSelector) -> Pool:
    listener = ListenerSettings(callers=(Caller(ae_title="CT 1"),), max_waiting=MANY, max_associations=MANY)
    settings = Settings(data_dir=tmp_path, listener=listener)
    return Pool(settings, selector, AuditTrail(settings, process="acceptor"))


@pytest.fixture
def receiver(pool: Pool) -> Iterator[socket.socket]:
    """The other end of a receiver's channel, for a receiver that is not there."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.settimeout(30)
    worker = Worker(number=0, process=Process(), channel=ours, started_at=0.0, ready=True)
    pool._workers.append(worker)
    pool.selector.register(ours, selectors.EVENT_READ, worker)
    with ours, theirs:
        yield theirs


def talk(pool: Pool) -> None:
    for key, events in pool.selector.select(timeout=0):
        pool.talk(key.data, events)


def test_answers_wait_for_a_receiver_that_does_not_read_and_none_is_lost(pool: Pool, receiver: socket.socket) -> None:
    for number in range(MANY):
        assert pool.connections.add(0, "10.1.2.3") == number
        receiver.send(Message(Word.ADMIT, number, "CT 1").encoded())
        talk(pool)  # nothing has been read yet of what it answers
    assert pool.connections.associations == MANY
    heard = []
    for _ in range(MANY):
        heard.append(decoded(receiver.recv(LARGEST)))
        talk(pool)
    assert heard == [Message(Word.ANSWER, number, "granted") for number in range(MANY)]


def test_a_connection_that_no_receiver_takes_is_not_counted(
    pool: Pool, receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pool.give(ours, "10.1.2.3", Word.SERVE)
    assert pool.connections.waiting == 0
    assert "no receiver could take a connection" in caplog.text


def test_a_title_with_a_space_is_asked_for_whole(pool: Pool, receiver: socket.socket) -> None:
    number = pool.connections.add(0, "10.1.2.3")
    receiver.send(Message(Word.ADMIT, number, "CT 1").encoded())
    talk(pool)
    node = pool.connections.of(number)
    assert node is not None
    assert (node.ae_title, node.address) == ("CT 1", "10.1.2.3")
