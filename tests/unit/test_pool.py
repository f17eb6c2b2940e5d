"""What the acceptor says to a receiver arrives in order, and a receiver that does not read holds up nobody."""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import Process
from pathlib import Path

import pytest

from m3node.audit.trail import AuditTrail
from m3node.intake.receive.channel import LARGEST, Message, Word, channel_ends, decoded
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
    ours, theirs = channel_ends()
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


@pytest.fixture
def callers() -> Iterator[Callable[[Pool], socket.socket]]:
    """Makes connections, of which the pool gets one end; a test that reads the other one sees whether it is closed."""
    with ExitStack() as stack:

        def connect(pool: Pool) -> socket.socket:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            pool.give(ours, "10.1.2.3", Word.SERVE)
            return theirs

        yield connect


def taken(receiver: socket.socket) -> tuple[Message, socket.socket]:
    said, handles, _, _ = socket.recv_fds(receiver, LARGEST, 1)
    return decoded(said), socket.socket(fileno=handles[0])


def closed(caller: socket.socket) -> bool:
    try:
        return caller.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def test_connections_wait_for_a_receiver_that_does_not_read_and_none_is_closed(
    pool: Pool, receiver: socket.socket, callers: Callable[[Pool], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    waiting = []
    while pool.ready:  # what comes later stays in the order of the port
        waiting.append(callers(pool))
        assert len(waiting) < 100, "a busy receiver is given more than it could have read"
    assert caplog.messages == ["no receiver can take a connection now: new ones wait"]
    assert not any(closed(caller) for caller in waiting)
    numbers = set()
    for caller in waiting:
        message, connection = taken(receiver)
        assert message.word is Word.SERVE
        numbers.add(message.number)
        with connection:
            connection.send(b"!")
        assert caller.recv(1) == b"!"
        assert closed(caller)  # nobody else has kept a handle
        talk(pool)
    assert len(numbers) == len(waiting) == pool.connections.waiting
    assert pool.ready
    talk(pool)  # and the loop has nothing to wake up for
    assert [events for _, events in pool.selector.select(timeout=0)] == []


def test_a_connection_that_comes_while_a_receiver_dies_waits_for_the_next_one(
    pool: Pool, receiver: socket.socket, callers: Callable[[Pool], socket.socket]
) -> None:
    receiver.close()
    caller = callers(pool)
    assert not closed(caller)
    assert not pool.ready
    assert pool.connections.waiting == 0
    ours, theirs = channel_ends()
    with ours, theirs:
        worker = Worker(number=1, process=Process(), channel=ours, started_at=0.0)
        pool._workers.append(worker)
        pool.selector.register(ours, selectors.EVENT_READ, worker)
        theirs.send(Message(Word.READY).encoded())
        pool.talk(worker, selectors.EVENT_READ)
        taken(theirs)[1].close()
    assert pool.ready


def test_what_nobody_has_taken_is_closed_when_the_node_stops(
    pool: Pool, receiver: socket.socket, callers: Callable[[Pool], socket.socket]
) -> None:
    pool._workers[0].ready = False
    caller = callers(pool)
    assert not closed(caller)
    assert pool.selector.select(timeout=0) == []  # nothing to do until a receiver says that it is ready
    pool.selector.unregister(pool._workers.pop().channel)
    pool.stop()
    assert closed(caller)


def test_a_title_with_a_space_is_asked_for_whole(pool: Pool, receiver: socket.socket) -> None:
    number = pool.connections.add(0, "10.1.2.3")
    receiver.send(Message(Word.ADMIT, number, "CT 1").encoded())
    talk(pool)
    node = pool.connections.of(number)
    assert node is not None
    assert (node.ae_title, node.address) == ("CT 1", "10.1.2.3")


def test_a_receiver_that_cannot_be_started_again_is_tried_later_and_ends_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(_process: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    ends: list[socket.socket] = []

    def made() -> tuple[socket.socket, socket.socket]:
        ends.extend(channel_ends())
        return ends[0], ends[1]

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", no_room)
    monkeypatch.setattr("m3node.intake.receive.pool.channel_ends", made)
    pool._due[3] = 0.0
    pool.start_due()
    assert pool._due[3] > 0.0
    assert "receiver 3 cannot be started yet: Resource temporarily unavailable" in caplog.text
    assert [end.fileno() for end in ends] == [-1, -1]
    assert not pool.complete
