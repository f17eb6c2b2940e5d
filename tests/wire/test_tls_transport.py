"""The connection below our associations: what TLS says for itself is no data, and how it is left."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import T_CONNECT, AddressInformation
from tls_peers import Listening, listening, speaking

from certified import Authority, Shown
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.association import Entity
from m3node.delivery.transport import Transport
from m3node.errors import ConfigError
from m3node.tls.calling import HandshakeError, Terms, secure
from waiting import wait_for


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server(authority: Authority) -> Shown:
    return authority.issue("pacs")


@contextmanager
def connected(
    handle: Callable[[socket.socket, Listening], None], terms: Terms | None, response: float = 60.0
) -> Iterator[Transport]:
    """A connection without anybody who reads it."""
    with listening(handle) as peer:
        to = Peer("PACS", "127.0.0.1", peer.port, terms)
        entity = Entity("M3NODE", to, Timeouts(connect=60.0, response=response))
        association = Association(entity, "requestor")
        transport = entity._create_socket(association, AddressInformation("", 0), None)
        request = A_ASSOCIATE()
        request.called_presentation_address = AddressInformation("127.0.0.1", peer.port)
        transport.connect(T_CONNECT(request))
        assert transport.trouble == ""
        try:
            yield transport
        finally:
            transport.close()


def readable(transport: Transport) -> bool:
    """Whether the kernel has something, whatever it is."""
    assert transport.socket is not None
    return bool(select.select([transport.socket], [], [], 0)[0])


def test_session_tickets_are_no_data_and_hold_up_nobody_who_has_something_to_say(
    authority: Authority, server: Shown
) -> None:
    spoken = threading.Event()

    def handle(connection: socket.socket, state: Listening) -> None:
        with speaking(server, only="1.3").wrap_socket(connection, server_side=True) as shaken:
            assert spoken.wait(60)
            shaken.sendall(b"abcdef")
            shaken.recv(1)

    with connected(handle, Terms(ca_file=authority.file)) as transport:
        wait_for(lambda: readable(transport))  # the tickets, which TLS 1.3 sends of its own accord
        assert not transport.ready
        assert not transport.ready
        spoken.set()
        wait_for(lambda: transport.ready)
        assert (transport.recv(4), transport.ready, transport.recv(2)) == (b"abcd", True, b"ef")
        assert not transport.ready


def test_half_a_record_is_no_data_until_the_rest_has_come(authority: Authority, server: Shown) -> None:
    go_on = threading.Event()

    def handle(connection: socket.socket, state: Listening) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inside = speaking(server, only="1.2").wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                inside.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        connection.sendall(outgoing.read())
        inside.write(b"abcdef")
        record = outgoing.read()
        connection.sendall(record[:7])
        assert go_on.wait(60)
        connection.sendall(record[7:])
        connection.recv(1)

    with connected(handle, Terms(ca_file=authority.file)) as transport:
        wait_for(lambda: readable(transport))
        assert not transport.ready
        go_on.set()
        wait_for(lambda: transport.ready)
        assert transport.recv(6) == b"abcdef"


def test_why_the_peer_broke_the_connection_is_read_also_by_who_only_sends(
    authority: Authority, server: Shown, tmp_path: Path
) -> None:
    strangers, ours = Authority(tmp_path / "strangers"), authority.issue("m3node")

    def handle(connection: socket.socket, state: Listening) -> None:
        speaking(server, callers=strangers, only="1.3").wrap_socket(connection, server_side=True)

    terms = Terms(ca_file=authority.file, client_certificate_file=ours.certificate, client_key_file=ours.key)
    with connected(handle, terms) as transport:
        wait_for(lambda: readable(transport))
        wait_for(lambda: transport.send(b"who is there?") or transport.trouble)
        assert transport.trouble == "it does not know the authority that signed our certificate"


@pytest.mark.parametrize("over_tls", [False, True])
def test_an_answer_has_its_time_however_it_drips(authority: Authority, server: Shown, over_tls: bool) -> None:
    stop = threading.Event()

    def drip(connection: socket.socket, state: Listening) -> None:
        speaker = speaking(server).wrap_socket(connection, server_side=True) if over_tls else connection
        with speaker:
            while not stop.wait(0.02):
                speaker.sendall(b"x")

    with connected(drip, Terms(ca_file=authority.file) if over_tls else None, response=0.3) as transport:
        try:
            wait_for(lambda: transport.ready)
            with pytest.raises(TimeoutError):
                transport.recv(100_000)
            assert transport.socket is not None
            assert transport.socket.gettimeout() == 0.3
        finally:
            stop.set()


def test_an_answer_that_is_larger_than_any_is_not_waited_for(authority: Authority) -> None:
    def announce(connection: socket.socket, state: Listening) -> None:
        connection.sendall(b"\x02\x00\xff\xff\xff\xff")
        connection.recv(1)

    with connected(announce, None) as transport:
        assert transport.recv(6) == b"\x02\x00\xff\xff\xff\xff"
        with pytest.raises(ConnectionAbortedError):
            transport.recv(0xFFFFFFFF)


@pytest.mark.parametrize(
    ("host", "ca_file", "kind"), [("127.0.0.1", "gone.pem", ConfigError), ("..", "authority/ca.pem", HandshakeError)]
)
def test_a_connection_that_comes_to_no_handshake_is_closed(
    authority: Authority, tmp_path: Path, host: str, ca_file: str, kind: type[Exception]
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(kind):
            secure(ours, (host, 104), Terms(ca_file=tmp_path / ca_file), 60.0)
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


def test_a_handshake_that_is_not_answered_ends_in_its_own_time(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(HandshakeError, match="it does not answer the TLS handshake"):
        secure(ours, ("127.0.0.1", 104), Terms(ca_file=authority.file), 0.1)
    assert ours.fileno() == -1


def test_we_take_leave_as_tls_wants_it(authority: Authority, server: Shown) -> None:
    ends: list[bytes] = []

    def handle(connection: socket.socket, state: Listening) -> None:
        with speaking(server).wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as shaken:
            ends.append(shaken.recv(1))  # raises where the connection just breaks off

    with connected(handle, Terms(ca_file=authority.file)):
        pass
    assert ends == [b""]


def test_what_is_sent_while_another_thread_shuts_the_connection_down_is_not_in_the_clear(
    authority: Authority, server: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    def handle(connection: socket.socket, state: Listening) -> None:
        raw = connection.dup()
        speaking(server).wrap_socket(connection, server_side=True).detach()
        with raw:
            raw.settimeout(60)
            while block := raw.recv(65536):
                heard.append(block)

    with connected(handle, Terms(ca_file=authority.file)) as transport:
        inside, shutdown = transport.socket, socket.socket.shutdown
        assert inside is not None

        def meanwhile(connection: socket.socket, how: int) -> None:
            inside.send(b"a name")
            shutdown(connection, how)

        monkeypatch.setattr(socket.socket, "shutdown", meanwhile)
        transport._shutdown_socket()
        monkeypatch.undo()
    assert heard
    assert b"a name" not in b"".join(heard)
