"""The bytes of an association over TLS: whole, in time, and free to end; and a handshake that is late or is none."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certified import Authority, Shown, caller
from m3node.audit.events import Node, SecurityAlert
from m3node.intake.receive.passed_socket import ConnectionEndedError, let_wait
from m3node.intake.receive.peer import PeerTls
from m3node.intake.receive.tls_door import TlsDoor
from m3node.intake.receive.tls_socket import TlsConnection
from m3node.settings import ListenerTls
from m3node.tls.contexts import fingerprint, server_context
from waiting import wait_for

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Shown:
    return authority.issue("node")


@pytest.fixture(scope="module")
def context(own: Shown) -> ssl.SSLContext:
    return server_context(own.certificate, own.key, None, ca_file=None, client_certificates="none", minimum="1.2")


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, ours first."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname(), timeout=60) as theirs,
        listening.accept()[0] as ours,
    ):
        yield ours, theirs


@contextmanager
def shaken(
    context: ssl.SSLContext, version: ssl.TLSVersion | None = None
) -> Iterator[tuple[TlsConnection, ssl.SSLSocket, socket.socket]]:
    """A connection after its handshake: ours, the peer's, and our bare socket."""
    calling = caller()
    if version is not None:
        calling.minimum_version = calling.maximum_version = version
    with pair() as (ours, theirs), ThreadPoolExecutor(1) as beside:
        tls = TlsConnection(ours, context)
        done = beside.submit(tls.shake_hands, 60.0)
        with calling.wrap_socket(theirs) as peer:
            done.result()
            let_wait(ours, 60.0)
            yield tls, peer, ours


@pytest.mark.parametrize("version", VERSIONS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    records=st.lists(st.binary(min_size=1, max_size=40_000), min_size=1, max_size=6),
    pieces=st.lists(st.integers(1, 70_000), min_size=1, max_size=6),
)
def test_however_the_bytes_are_cut_they_arrive_as_they_were_sent(
    context: ssl.SSLContext, version: ssl.TLSVersion, records: list[bytes], pieces: list[int]
) -> None:
    whole = b"".join(records)
    with shaken(context, version) as (tls, peer, _), ThreadPoolExecutor(1) as beside:
        sending = beside.submit(lambda: [peer.sendall(record) for record in records])
        got = bytearray()
        while len(got) < len(whole):
            piece = bytearray(min(pieces[len(got) % len(pieces)], len(whole) - len(got)))
            tls.read_into(memoryview(piece), 60.0)
            got += piece
        sending.result()
        assert got == whole
        answering = beside.submit(tls.write, whole, 60.0)
        back = bytearray()
        while len(back) < len(whole):
            back += peer.recv(65536)
        answering.result()
        assert back == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 3000), min_size=1, max_size=5))
def test_records_and_handshake_may_come_in_pieces(context: ssl.SSLContext, cuts: list[int]) -> None:
    calling = caller()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = calling.wrap_bio(incoming, outgoing)
    sent = bytes(range(256)) * 40

    def dribble(to: socket.socket) -> None:
        left = outgoing.read()
        number = 0
        while left:
            size = cuts[number % len(cuts)]
            to.sendall(left[:size])
            left = left[size:]
            number += 1

    with pair() as (ours, theirs), ThreadPoolExecutor(1) as beside:
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = TlsConnection(ours, context)
        done = beside.submit(tls.shake_hands, 60.0)
        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                dribble(theirs)
                incoming.write(theirs.recv(65536))
        dribble(theirs)
        done.result()
        let_wait(ours, 60.0)
        got = bytearray(len(sent))
        reading = beside.submit(tls.read_into, memoryview(got), 60.0)
        peer.write(sent)
        dribble(theirs)
        reading.result()
    assert got == sent


def read(tls: TlsConnection, count: int, seconds: float = 60.0) -> bytes:
    target = bytearray(count)
    tls.read_into(memoryview(target), seconds)
    return bytes(target)


def test_what_came_in_one_record_with_what_was_read_is_not_lost(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, peer, ours):
        peer.sendall(b"0123456789")
        assert read(tls, 4) == b"0123"
        let_wait(ours, 0.05)  # nothing more comes over the wire
        assert read(tls, 6, 0.05) == b"456789"


def test_what_is_passed_over_is_passed_over_record_by_record(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, peer, _):
        peer.sendall(bytes(10_000))
        tls.discard(60.0)
        peer.sendall(b"END")
        assert read(tls, 3) == b"END"


def test_silence_is_told_from_an_end_within_a_pdu(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, peer, ours):
        let_wait(ours, 0.05)
        with pytest.raises(TimeoutError):
            read(tls, 4, 0.05)
        peer.sendall(b"01")
        with pytest.raises(ConnectionEndedError):
            read(tls, 4, 0.05)


def test_records_that_drip_do_not_prolong_a_pdu(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, peer, _):
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.02):
                try:
                    peer.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with pytest.raises(ConnectionEndedError):
                read(tls, 1_000_000, 0.3)
        finally:
            stop.set()
            dripping.join()


def test_a_peer_that_takes_nothing_is_left_when_its_time_is_over(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, _, ours):
        let_wait(ours, 0.05)
        with pytest.raises(TimeoutError):
            tls.write(bytes(50_000_000), 0.05)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(1_000_000))
        with pytest.raises(TimeoutError):  # there is no room for a byte now
            tls.write(b"x", 0.05)


def test_a_peer_that_takes_a_little_now_and_then_is_left_as_well(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, peer, ours):
        let_wait(ours, 0.3)
        stop = threading.Event()

        def sip() -> None:
            while not stop.wait(0.02):
                peer.recv(200_000)

        sipping = threading.Thread(target=sip)
        sipping.start()
        try:
            with pytest.raises(TimeoutError):
                tls.write(bytes(50_000_000), 0.3)
        finally:
            stop.set()
            sipping.join()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("politely", [True, False])
def test_the_peers_end_is_an_end(context: ssl.SSLContext, version: ssl.TLSVersion, politely: bool) -> None:
    with shaken(context, version) as (tls, peer, _):
        peer.sendall(b"last")
        if politely:
            peer.settimeout(0.0)
            with pytest.raises(ssl.SSLWantReadError):
                peer.unwrap()  # close_notify, without waiting for ours
        else:
            peer.shutdown(socket.SHUT_WR)
        assert read(tls, 4) == b"last"
        with pytest.raises(ConnectionEndedError):
            read(tls, 1)


def test_another_thread_ends_the_waiting_and_the_last_word_still_goes_out(context: ssl.SSLContext) -> None:
    with shaken(context) as (tls, peer, ours), ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(read, tls, 6)
        ours.shutdown(socket.SHUT_RD)
        assert isinstance(waiting.exception(), ConnectionEndedError)
        tls.write(b"abort", 60.0)
        tls.say_end()
        assert peer.recv(16) == b"abort"
        assert peer.recv(16) == b""  # close_notify, not a broken connection


def test_bytes_that_were_altered_on_the_way_end_the_association(
    context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    calling = caller()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = calling.wrap_bio(incoming, outgoing)
    with pair() as (ours, theirs), ThreadPoolExecutor(1) as beside:
        tls = TlsConnection(ours, context)
        done = beside.submit(tls.shake_hands, 60.0)
        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                theirs.sendall(outgoing.read())
                incoming.write(theirs.recv(65536))
        theirs.sendall(outgoing.read())
        done.result()
        let_wait(ours, 60.0)
        peer.write(b"what was said")
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        theirs.sendall(record)
        with pytest.raises(ConnectionEndedError):
            read(tls, 4)
        assert "what it sent was altered on the way" in caplog.text
        incoming.write(theirs.recv(65536))
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            peer.read(1)  # the peer hears why


def test_a_peer_may_change_its_keys(context: ssl.SSLContext, program: Callable[[str], str]) -> None:
    command = [program("openssl"), "s_client", "-tls1_3", "-connect"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        with (
            subprocess.Popen(
                [*command, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as peer,
            listening.accept()[0] as ours,
        ):
            assert peer.stdin is not None
            assert peer.stdout is not None
            assert peer.stderr is not None
            tls = TlsConnection(ours, context)
            tls.shake_hands(60.0)
            let_wait(ours, 60.0)
            peer.stdin.write(b"K\n")  # its command for new keys on both sides
            peer.stdin.flush()
            while b"KEYUPDATE" not in (line := peer.stderr.readline()):
                assert line
            peer.stdin.write(b"with new keys")
            peer.stdin.flush()
            assert read(tls, 13) == b"with new keys"
            tls.write(b"and so do we\n", 60.0)
            tls.say_end()
            ours.shutdown(socket.SHUT_WR)
            assert b"and so do we\n" in peer.stdout.read()


class Door:
    """A door, and what was said at it."""

    def __init__(self, tls: ListenerTls) -> None:
        self.alerts: list[SecurityAlert] = []
        self.lines: list[tuple[int, str]] = []
        self._door = TlsDoor(tls, self.alerts.append, lambda level, line: self.lines.append((level, line)))

    def opens(self, calling: Callable[[socket.socket], object]) -> TlsConnection | None:
        """Let somebody come in, and say who has."""
        with pair() as (ours, theirs), ThreadPoolExecutor(1) as beside:
            come = beside.submit(calling, theirs)
            admitted = self._door.admit(ours)
            ours.close()
            come.exception()
            return admitted


@pytest.fixture
def door(authority: Authority, own: Shown) -> Door:
    tls = ListenerTls(
        certificate_file=own.certificate, key_file=own.key, ca_file=authority.file, handshake_seconds=60.0
    )
    return Door(tls)


def test_what_a_handshake_has_shown_is_handed_on(door: Door, authority: Authority) -> None:
    modality = authority.issue("modality")

    def call(theirs: socket.socket) -> None:
        with caller(authority.file, modality).wrap_socket(theirs, server_hostname="localhost"):
            pass

    admitted = door.opens(call)
    assert admitted is not None
    assert admitted.shown == PeerTls("TLSv1.3", "TLS_AES_256_GCM_SHA384", fingerprint(modality.der))
    assert (door.alerts, door.lines) == ([], [])


@pytest.mark.parametrize("drips", [False, True])
def test_a_handshake_has_its_time_and_no_more(authority: Authority, own: Shown, drips: bool) -> None:
    door = Door(
        ListenerTls(certificate_file=own.certificate, key_file=own.key, ca_file=authority.file, handshake_seconds=0.3)
    )

    def call(theirs: socket.socket) -> None:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(508)
        theirs.settimeout(0.02)
        position = 0
        while True:
            if drips and position < len(hello):
                theirs.sendall(hello[position : position + 1])
                position += 1
            try:
                if not theirs.recv(1):
                    return
            except TimeoutError:
                continue

    assert door.opens(call) is None
    why = "it did not finish the handshake in time"
    assert door.lines == [(logging.WARNING, f"refused a connection from 127.0.0.1 to the TLS port: {why}")]
    assert door.alerts == [SecurityAlert("node authentication", Node("", "127.0.0.1"), f"TLS: {why}")]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks HTTP"),
        (b"\x01\x00\x00\x00\x00\x50" + bytes(80), "what it sent is not TLS"),
        (bytes(1000), "what it sent is not TLS"),
        (b"\x16\x03\x01", "it ended the connection during the handshake"),
    ],
)
def test_what_is_no_handshake_is_named_and_counted(
    door: Door, words: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr("m3node.metrics.counting.association_ended", counted.append)

    def call(theirs: socket.socket) -> None:
        theirs.sendall(words)
        theirs.shutdown(socket.SHUT_WR)
        while theirs.recv(1024):
            pass

    assert door.opens(call) is None
    assert [alert.reason for alert in door.alerts] == [f"TLS: {why}"]
    assert counted == ["refused_tls"]


def test_a_probe_that_connects_and_hangs_up_is_no_alert(door: Door) -> None:
    assert door.opens(lambda theirs: theirs.close()) is None
    assert (door.alerts, door.lines) == ([], [])


def test_a_refused_caller_hears_why(door: Door, authority: Authority) -> None:
    heard: list[Exception] = []

    def call(theirs: socket.socket) -> None:
        # It sends at once, as TLS 1.3 allows; the alert must reach it all the same.
        try:
            with caller(authority.file).wrap_socket(theirs, server_hostname="localhost") as over:
                over.sendall(bytes(200_000))
                over.recv(1)
        except OSError as error:
            heard.append(error)

    assert door.opens(call) is None
    assert isinstance(heard[0], ssl.SSLError)
    assert heard[0].reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_files_that_break_before_the_first_one_calls_stay_in_use(
    authority: Authority, own: Shown, tmp_path: Path
) -> None:
    certificate = tmp_path / "node.pem"
    certificate.write_bytes(own.certificate.read_bytes())
    door = Door(
        ListenerTls(certificate_file=certificate, key_file=own.key, client_certificates="none", handshake_seconds=60.0)
    )
    certificate.write_text("half of it")

    def call(theirs: socket.socket) -> None:
        with caller(authority.file).wrap_socket(theirs, server_hostname="localhost"):
            pass

    assert door.opens(call) is not None


def test_files_that_cannot_be_used_refuse_connections_and_nothing_else_until_they_can(
    authority: Authority, own: Shown, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = tmp_path / "node.pem"
    door = Door(
        ListenerTls(certificate_file=certificate, key_file=own.key, client_certificates="none", handshake_seconds=60.0)
    )

    def call(theirs: socket.socket) -> None:
        with caller(authority.file).wrap_socket(theirs, server_hostname="localhost"):
            pass

    for _ in range(2):
        assert door.opens(call) is None
    assert door.alerts == []
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"cannot read {certificate}: No such file or directory (listener.tls.certificate_file)"]
    certificate.write_bytes(own.certificate.read_bytes())
    wait_for(lambda: door.opens(call) is not None)
