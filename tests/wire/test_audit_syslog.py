"""The trail reaches its repository by syslog over TLS, framed as RFC 5425 wants it, in order, with nothing missing."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from syslog_server import SyslogServer, frames, syslog_server

import audited
from certified import Authority, Shown
from m3node.audit import forwarding
from m3node.audit.events import ApplicationActivity
from m3node.audit.files import append
from m3node.audit.forwarded import FILE, read_batch, read_memory, standing
from m3node.audit.forwarding import Forwarder, forward
from m3node.audit.syslog import BOM, frame, packet
from m3node.audit.trail import AuditTrail
from m3node.settings import Settings
from ports import free_port
from waiting import wait_for

HEADER = re.compile(
    rb"<85>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) m3node (\d+) DICOM\+RFC3881 - \xef\xbb\xbf"
)
"""RFC 5424 6: priority, version, time, host, application, process, message id, no structured data, BOM."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Shown:
    return authority.issue("syslog")


@pytest.fixture
def server(shown: Shown) -> Iterator[SyslogServer]:
    with syslog_server(shown) as server:
        yield server


class Node:
    """A trail and its forwarder, on a clock that stands still until told."""

    def __init__(self, root: Path, port: int, authority: Authority, **more: Any) -> None:
        syslog = {"host": "127.0.0.1", "port": port, "ca_file": authority.file, **more}
        self.settings = Settings(data_dir=root, audit={"syslog": syslog})  # type: ignore[arg-type]
        self.folder = root / "audit"
        self.clock = Clock()
        self.trail = AuditTrail(self.settings, process="test")
        self.written = 0
        self.forwarder = Forwarder(self.settings, clock=self.clock)

    def restart(self) -> None:
        """As after kill -9."""
        if self.forwarder._connection is not None:
            self.forwarder._connection.close()
        self.forwarder = Forwarder(self.settings, clock=self.clock)

    def record(self, count: int) -> None:
        for _ in range(count):
            self.trail.record(ApplicationActivity(True, str(self.written)))
            self.written += 1

    def settle(self, server: SyslogServer) -> None:
        """Let the forwarder send all, and be sure of it."""
        self.forwarder.step()
        wait_for(lambda: numbers(server)[-1:] == [self.written - 1])
        self.be_sure()

    def be_sure(self) -> None:
        def there() -> bool:
            self.clock.now += forwarding.SURE_SECONDS
            self.forwarder.step()
            view = standing(self.settings)
            return view is not None and view.behind == 0

        wait_for(there)

    @property
    def behind(self) -> int:
        view = standing(self.settings)
        assert view is not None
        return view.behind

    @property
    def error(self) -> str:
        view = standing(self.settings)
        assert view is not None
        return view.error


@pytest.fixture
def made(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(port: int, **more: Any) -> Node:
        nodes.append(Node(tmp_path, port, authority, **more))
        return nodes[-1]

    yield make
    for node in nodes:
        node.forwarder.close()


def body(message: bytes) -> bytes:
    found = HEADER.match(message)
    assert found, message[:200]
    return message[found.end() :]


def numbers(server: SyslogServer) -> list[int]:
    """What arrived, in its order; every message must be whole and valid."""
    bodies = [body(message) for message in list(server.messages)]
    assert [audited.faults(line) for line in bodies] == [[]] * len(bodies)
    return [int(audited.words(etree.fromstring(line))) for line in bodies]


def once(found: list[int]) -> list[int]:
    """Without what came again."""
    return list(dict.fromkeys(found))


def test_a_message_is_framed_and_headed_byte_for_byte() -> None:
    line = b'<AuditMessage><E EventDateTime="2026-11-22T09:00:00.123Z" />\xc3\xa4</AuditMessage>'
    message = packet(line, host="ct node\n", pid=42)
    head = b"<85>1 2026-11-22T09:00:00.123Z ctnode m3node 42 DICOM+RFC3881 - "
    assert message == head + BOM + line
    assert frame(message) == str(len(message)).encode() + b" " + message


def test_what_is_recorded_arrives_in_order(server: SyslogServer, made: Callable[..., Node]) -> None:
    node = made(server.port)
    node.record(50)
    node.settle(server)
    node.record(50)
    node.settle(server)
    assert numbers(server) == list(range(100))
    assert server.connections == 1
    found = HEADER.match(server.messages[0])
    assert found is not None
    assert found[2].decode() == socket.gethostname()
    assert [body(message) for message in server.messages] == audited.lines(node.folder)


def test_the_frames_of_a_stream_are_cut_by_their_lengths() -> None:
    """The same with no help of the test's server: what is on the wire, in one piece."""
    line = b'<AuditMessage><E EventDateTime="2026-11-22T09:00:00.123Z" />%d</AuditMessage>'
    stream = b"".join(frame(packet(line % i, host="h", pid=1)) for i in range(3))
    place = 0

    def receive(count: int) -> bytes:
        nonlocal place
        part = stream[place : place + count]
        place += len(part)
        return part

    assert [body(message) for message in frames(receive)] == [line % i for i in range(3)]


def test_nothing_is_lost_in_an_outage_and_the_order_is_kept(shown: Shown, made: Callable[..., Node]) -> None:
    port = free_port()
    node = made(port)
    with syslog_server(shown, port=port) as first:
        node.record(20)
        node.settle(first)
        node.record(5)
        node.forwarder.step()
        wait_for(lambda: numbers(first)[-1:] == [24])  # read, but the forwarder cannot know
    node.record(20)
    pauses = [node.forwarder.step() for _ in range(8)]
    assert pauses[-1] == forwarding.LONGEST_PAUSE
    assert sorted(pauses) == pauses
    assert node.error
    view = standing(node.settings)
    assert view is not None
    assert view.behind == 25
    with syslog_server(shown, port=port) as second:
        node.settle(second)
        assert numbers(second) == list(range(20, 45))
    assert node.error == ""


def test_what_a_repository_swallowed_when_it_went_down_is_sent_again(
    server: SyslogServer, made: Callable[..., Node]
) -> None:
    node = made(server.port)
    node.record(10)
    node.settle(server)
    node.record(10)
    node.forwarder.step()
    wait_for(lambda: len(server.messages) == 20)
    del server.messages[15:]  # it had read them, and nobody has seen them
    server.cut()
    wait_for(lambda: node.forwarder.step() != forwarding.LOOK_SECONDS)  # it sees that the connection is gone
    node.settle(server)
    assert once(numbers(server)) == list(range(20))
    assert numbers(server)[15:] == list(range(10, 20))


def test_a_forwarder_that_is_killed_goes_on_where_it_was_sure(server: SyslogServer, made: Callable[..., Node]) -> None:
    node = made(server.port)
    node.record(10)
    node.settle(server)
    node.record(3)
    node.forwarder.step()
    node.restart()
    node.record(2)
    node.settle(server)
    assert once(numbers(server)) == list(range(15))
    assert numbers(server)[13:] == list(range(10, 15))


def test_after_a_goodbye_nothing_is_sent_twice(server: SyslogServer, made: Callable[..., Node]) -> None:
    node = made(server.port)
    node.record(10)
    node.forwarder.step()
    node.forwarder.close()
    wait_for(lambda: server.goodbyes == 1)
    node.restart()
    node.record(1)
    node.settle(server)
    assert numbers(server) == list(range(11))


def test_what_is_under_way_is_not_there(
    server: SyslogServer, made: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = made(server.port)
    node.record(2)
    with monkeypatch.context() as patch:
        patch.setattr(forwarding, "_unacknowledged", lambda connection: 1)
        for _ in range(3):
            node.forwarder.step()
            node.clock.now += forwarding.SURE_SECONDS
        assert node.behind == 2
    node.be_sure()
    assert node.behind == 0


def test_a_goodbye_without_an_answer_makes_nothing_sure(
    server: SyslogServer, made: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: ssl.SSLSocket) -> None:
        raise ConnectionResetError

    node = made(server.port)
    node.record(2)
    node.forwarder.step()
    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLSocket, "unwrap", broken)
        node.forwarder.close()
    assert node.behind == 2
    node.restart()
    node.settle(server)
    assert once(numbers(server)) == [0, 1]


def test_a_connection_that_nobody_needs_is_closed_in_order(server: SyslogServer, made: Callable[..., Node]) -> None:
    node = made(server.port)
    node.record(1)
    node.settle(server)
    node.clock.now += forwarding.IDLE_SECONDS
    node.forwarder.step()
    wait_for(lambda: server.goodbyes == 1)
    node.record(1)
    node.settle(server)
    assert (numbers(server), server.connections) == ([0, 1], 2)


def test_a_repository_that_hangs_up_when_all_is_there_is_no_trouble(
    server: SyslogServer, made: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    node = made(server.port)
    node.record(2)
    node.settle(server)
    server.cut()
    wait_for(lambda: node.forwarder.step() and node.forwarder._connection is None)
    node.record(1)
    node.settle(server)
    assert (numbers(server), server.connections) == ([0, 1, 2], 2)
    assert caplog.text == ""


def test_a_new_month_goes_on_in_its_file_and_a_straggler_of_the_old_one_is_not_lost(
    server: SyslogServer, made: Callable[..., Node]
) -> None:
    node = made(server.port)
    ends_of_2026 = 1_798_761_599.0
    line = b'<AuditMessage><EventIdentification EventDateTime="2026-12-31T23:59:59.000Z" />%d</AuditMessage>'
    append(node.folder, line % 0, ends_of_2026)
    node.forwarder.step()
    append(node.folder, line % 1, ends_of_2026 + 1)
    node.forwarder.step()
    append(node.folder, line % 2, ends_of_2026)
    node.forwarder.step()
    wait_for(lambda: len(server.messages) == 3)
    assert [body(message) for message in server.messages] == [line % 0, line % 1, line % 2]
    node.be_sure()
    assert set(read_memory(node.folder).places) == {"2026-12.xml", "2027-01.xml"}


def test_a_line_that_is_still_being_written_waits_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "2026-11.xml"
    path.write_bytes(b"<AuditMessage>1</AuditMessage>\n<AuditMess\n<AuditMessage>2</AuditMessage>\n<AuditMessage>3")
    batch = read_batch(path, 0)
    assert batch is not None
    assert batch.lines == (b"<AuditMessage>1</AuditMessage>", b"<AuditMessage>2</AuditMessage>")
    assert read_batch(path, batch.end) is None


def test_a_line_longer_than_a_batch_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "2026-11.xml"
    line = b"<AuditMessage>" + b"x" * 600_000 + b"</AuditMessage>"
    path.write_bytes(line + b"\n")
    batch = read_batch(path, 0)
    assert batch is not None
    assert (batch.lines, batch.end) == ((line,), len(line) + 1)


def test_a_file_that_became_shorter_is_sent_from_its_beginning(server: SyslogServer, made: Callable[..., Node]) -> None:
    node = made(server.port)
    node.record(3)
    node.settle(server)
    (path,) = node.folder.glob("*.xml")
    path.write_bytes(b"")
    node.forwarder.step()
    node.record(1)
    node.settle(server)
    assert numbers(server) == [0, 1, 2, 3]


def test_what_is_remembered_may_be_damaged_and_then_all_is_sent_again(
    server: SyslogServer, made: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    node = made(server.port)
    node.record(3)
    node.settle(server)
    for damage in (b"{", b"[]", b'{"schema": "another"}'):
        server.messages.clear()
        (node.folder / FILE).write_bytes(damage)
        node.restart()
        node.settle(server)
        assert numbers(server) == [0, 1, 2]
    assert caplog.text.count("is damaged") >= 3
    assert json.loads((node.folder / FILE).read_text())["error"] == ""


def test_a_repository_that_is_not_the_one_we_trust_gets_nothing(
    server: SyslogServer, made: Callable[..., Node], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = made(server.port, ca_file=Authority(tmp_path / "other", "other").file)
    node.record(1)
    for _ in range(5):
        node.forwarder.step()
    assert "not signed by an authority" in node.error
    assert caplog.text.count("cannot be forwarded") == 1  # said once, and not every second
    assert server.messages == []


def test_only_the_pinned_certificate_gets_the_trail(
    server: SyslogServer, shown: Shown, made: Callable[..., Node]
) -> None:
    node = made(server.port, ca_file=None, certificate_sha256=["00" * 32])
    node.record(2)
    node.forwarder.step()
    assert node.error
    assert server.messages == []
    right = made(server.port, ca_file=None, certificate_sha256=[hashlib.sha256(shown.der).hexdigest()])
    right.written = 2
    right.settle(server)
    assert numbers(server) == [0, 1]


def test_a_repository_that_wants_our_certificate_gets_it_and_without_it_nothing_counts_as_sent(
    shown: Shown, authority: Authority, made: Callable[..., Node]
) -> None:
    ours = authority.issue("node")
    with syslog_server(shown, clients=authority) as server:
        bare = made(server.port)
        bare.record(2)
        wait_for(lambda: bare.forwarder.step() != forwarding.LOOK_SECONDS)
        assert "a certificate of ours" in bare.error
        view = standing(bare.settings)
        assert view is not None
        assert view.behind == 2
        node = made(server.port, client_certificate_file=ours.certificate, client_key_file=ours.key)
        node.written = 2
        node.settle(server)
        assert numbers(server) == [0, 1]


def test_how_far_behind_it_is_and_since_when_is_known_without_the_forwarder(
    made: Callable[..., Node], tmp_path: Path
) -> None:
    node = made(free_port())
    before = time.time() - 0.001
    node.record(4)
    view = standing(node.settings)
    assert view is not None
    assert view.since is not None
    assert view.behind == 4
    assert before <= view.since <= time.time()
    assert standing(Settings(data_dir=tmp_path)) is None


def test_the_role_forwards_until_it_is_told_to_stop(server: SyslogServer, made: Callable[..., Node]) -> None:
    node = made(server.port)
    stop = threading.Event()
    role = threading.Thread(target=forward, args=(node.settings, stop))
    role.start()
    try:
        node.record(3)
        wait_for(lambda: numbers(server) == [0, 1, 2])
    finally:
        stop.set()
        role.join()
    assert server.goodbyes == 1
    view = standing(node.settings)
    assert view is not None
    assert view.behind == 0
