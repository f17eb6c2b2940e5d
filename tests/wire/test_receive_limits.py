"""Nobody who asks for nothing or for too much keeps others from being served; who is slowed down loses nothing."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import struct
from contextlib import ExitStack, suppress
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from pynetdicom.association import Association
from receiving import (
    CT,
    EXPLICIT,
    Node,
    OpenDesk,
    associated,
    in_this_process,
    named,
    raw_store,
    rejection,
    running,
    tiny,
)

from m3node.intake.receive.association import read_leases
from m3node.intake.receive.connections import Grant
from m3node.intake.receive.rates import Turn
from m3node.intake.receive.spool import INCOMING
from m3node.metrics.snapshot import read_counts
from m3node.settings import Caller
from waiting import wait_for

VERIFICATION = "1.2.840.10008.1.1"


def silent(node: Node, stack: ExitStack, source: str = "127.0.0.1") -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", node.port), timeout=30, source_address=(source, 0))
    return stack.enter_context(peer)


def closed(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def store(association: Association, number: int, tail: bytes = b"") -> tuple[int, str]:
    """Store an instance; return status and comment of the answer."""
    response = raw_store(association, tiny(named(number), tail), sop_instance=f"2.25.3.{number}")
    assert response is not None
    return response.Status, response.ErrorComment or ""


def audited(node: Node) -> str:
    return "".join(path.read_text("utf-8") for path in (node.layout.root / "audit").glob("*.xml"))


def counted(node: Node, family: str) -> dict[str, float]:
    """What the receivers of a node that has ended have counted, by the metric's label."""
    found: dict[str, float] = {}
    for path in node.layout.metrics.glob("receiver-*.json"):
        for (name, *labels), value in read_counts(path).totals.items():
            if name == family:
                found[labels[0]] = found.get(labels[0], 0) + value
    return found


def test_silent_connections_take_no_room_from_associations(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=2, receivers=2) as node, ExitStack() as stack:
        waiting = [silent(node, stack) for _ in range(60)]
        with associated(node.port) as association:
            assert store(association, 1) == (0, "")
        assert not any(closed(peer) for peer in waiting)
    assert counted(node, "associations")["accepted"] == 1
    assert counted(node, "associations")["silent"] == 60


def test_when_too_many_connections_wait_the_oldest_gives_way_and_no_association_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, max_waiting=5, receivers=2) as node, ExitStack() as stack:
        association = stack.enter_context(associated(node.port))
        oldest, *others = (silent(node, stack) for _ in range(6))
        wait_for(lambda: closed(oldest))
        assert not any(closed(peer) for peer in others)
        for _ in range(20):
            late = stack.enter_context(associated(node.port))
            assert late.is_established
            late.release()
        assert store(association, 1) == (0, "")
        assert "listener.max_waiting" in audited(node)
    assert "gave way to others: over 5 connections wait (listener.max_waiting)" in capfd.readouterr().err


def test_a_flood_from_one_address_gives_way_to_itself(tmp_path: Path) -> None:
    with running(tmp_path, max_waiting=5) as node, ExitStack() as stack:
        flood = [silent(node, stack, "127.0.0.2") for _ in range(5)]
        honest = silent(node, stack)
        wait_for(lambda: closed(flood[0]))
        flood += [silent(node, stack, "127.0.0.2") for _ in range(20)]
        wait_for(lambda: all(closed(peer) for peer in flood[:-4]))
        assert asking(honest, "TESTER")[0] == 2  # accepted, however long it took to ask


def test_a_connection_that_asks_for_nothing_is_closed_in_its_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, request_seconds=0.5) as node, ExitStack() as stack:
        peer = silent(node, stack)
        wait_for(lambda: closed(peer))
    assert "a connection from 127.0.0.1 asked for nothing in its time: it is closed" in capfd.readouterr().err


def test_a_receiver_may_have_as_many_files_open_as_its_limits_need(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, 4000) if hard != resource.RLIM_INFINITY else 4000
    with running(tmp_path, max_waiting=most) as node, associated(node.port) as association:
        assert association.is_established
        (lease,) = read_leases(node.layout.associations)
        allowed, _ = resource.prlimit(lease.pid, resource.RLIMIT_NOFILE)
    assert allowed >= max(soft, most)


def test_a_caller_has_its_own_number_of_associations_within_that_of_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    callers = (Caller(ae_title="CT1", max_associations=1), Caller(ae_title="TESTER"))
    with running(tmp_path, callers=callers, max_associations=3, receivers=2) as node:
        with associated(node.port, calling="CT1") as first, associated(node.port) as other:
            assert first.is_established
            assert other.is_established
            assert rejection(node.port, calling="CT1") == (2, 3, 2)
            with associated(node.port) as last:
                assert last.is_established
                assert rejection(node.port) == (2, 3, 2)
        wait_for(lambda: rejection(node.port, calling="CT1") is None)
        assert "listener.callers.max_associations" in audited(node)
    said = capfd.readouterr().err
    assert "rejected an association from CT1 at 127.0.0.1 to M3NODE: local limit exceeded (listener.callers." in said
    assert "rejected an association from TESTER at 127.0.0.1 to M3NODE: local limit exceeded (listener.max_" in said
    assert counted(node, "associations")["limit"] >= 2


def test_a_killed_receiver_gives_the_room_of_its_associations_back(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=1) as node:
        with associated(node.port) as association:
            assert association.is_established
            assert rejection(node.port) == (2, 3, 2)
            (lease,) = read_leases(node.layout.associations)
            os.kill(lease.pid, signal.SIGKILL)
            wait_for(lambda: not association.is_established)

        def served() -> bool:
            with associated(node.port) as association:
                return bool(association.is_established)

        wait_for(served)


def test_a_sender_that_is_too_fast_is_slowed_down_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = Caller(ae_title="TESTER", instances_per_minute=60)
    with running(tmp_path, callers=(fast,)) as node:
        statuses = []
        with associated(node.port) as association:
            association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while "listener.callers.instances_per_minute = 60: held back" not in audited(node):
                statuses.append(store(association, len(statuses)))
                assert len(statuses) < 1000
            statuses.append(store(association, len(statuses)))
        assert len(statuses) > 60
        assert set(statuses) == {(0, "")}
        assert len([name for name in node.stored() if name.endswith(".dcm")]) == len(statuses)
    first, *more = [line for line in caplog.messages if line.startswith("TESTER sends more than")]
    assert first.endswith("listener.callers.instances_per_minute = 60: an instance is answered later")
    assert len(more) <= 1  # how often it came again
    assert counted(node, "instances_received")["new"] == len(statuses)


class Slow(OpenDesk):
    def turn(self) -> Turn:
        return Turn(3.0, "a limit")


def test_our_own_pause_is_no_silence_of_the_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenDesk, "turn", Slow.turn)
    node = in_this_process(tmp_path, instances_per_minute=1, idle_seconds=2.0)
    with node as here, associated(here.port) as association:
        assert store(association, 1) == (0, "")
        assert store(association, 2) == (0, "")


def test_an_acceptor_that_does_not_answer_has_the_sender_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenDesk, "turn", lambda _desk: Turn(None))
    with in_this_process(tmp_path, instances_per_minute=1) as here, associated(here.port) as association:
        assert store(association, 1) == (0xA700, "the node is too busy to say when it may come")


def test_what_would_wait_for_long_is_refused_whichever_receiver_it_came_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, instances_per_minute=1, receivers=2) as node:
        with associated(node.port) as first, associated(node.port, (CT, EXPLICIT), (VERIFICATION, EXPLICIT)) as second:
            assert len({lease.pid for lease in read_leases(node.layout.associations)}) == 2
            assert store(first, 1) == (0, "")
            for _ in range(5):
                assert store(second, 2) == (0xA700, "more than listener.instances_per_minute = 1")
            assert second.send_c_echo().Status == 0
        assert node.stored() == {"2.25.1/2.25.2/2.25.3.1.dcm"}
        assert "more than listener.instances_per_minute = 1: refused" in audited(node)
    said = capfd.readouterr().err
    line = "refused instances from TESTER with status 0xA700: more than listener.instances_per_minute = 1"
    assert f"{line}: and 2 more within a minute" in said
    assert said.count(line) == 3 + 1
    assert counted(node, "instances_received")["limit"] == 5


def test_an_association_that_may_finish_while_the_node_stops_gets_its_turns(tmp_path: Path) -> None:
    with running(tmp_path, instances_per_minute=6000) as node, ExitStack() as stack:
        association = stack.enter_context(associated(node.port))
        waiting = silent(node, stack)
        wait_for(lambda: association.is_established)
        node.stop.set()
        wait_for(lambda: closed(waiting))  # what has asked for nothing is not waited for
        assert store(association, 1) == (0, "")


def test_what_is_too_large_is_refused_and_the_association_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    callers = (Caller(ae_title="TESTER", max_object_mb=0.1), Caller(ae_title="CT1"))
    with running(tmp_path, callers=callers, max_object_mb=0.2) as node:
        with associated(node.port) as association:
            assert store(association, 1, bytes(99_000)) == (0, "")
            assert store(association, 2, bytes(101_000)) == (0xA700, "larger than listener.callers.max_object_mb = 0.1")
            assert store(association, 3) == (0, "")
        with associated(node.port, calling="CT1") as association:
            assert store(association, 4, bytes(199_000)) == (0, "")
            assert store(association, 5, bytes(201_000)) == (0xA700, "larger than listener.max_object_mb = 0.2")
        assert len([name for name in node.stored() if name.endswith(".dcm")]) == 3
        assert list((node.layout.spool / INCOMING).iterdir()) == []
        assert "an instance is larger than listener.callers.max_object_mb = 0.1" in audited(node)
    assert "refused instances from CT1 with status 0xA700: larger than listener.max_object_mb" in capfd.readouterr().err
    assert counted(node, "instances_received")["limit"] == 2
    assert counted(node, "instances_received")["new"] == 3


@pytest.mark.parametrize(("length", "aborted"), [(8192, False), (8193, True)])
def test_a_pdu_longer_than_what_its_caller_was_told_is_not_believed(tmp_path: Path, length: int, aborted: bool) -> None:
    small = Caller(ae_title="TESTER", maximum_pdu_size=8192)
    with running(tmp_path, callers=(small, Caller(ae_title="CT1")), maximum_pdu_size=20_000) as node:
        with associated(node.port, calling="CT1") as association:
            assert association.acceptor.maximum_length == 20_000
        with associated(node.port) as association:
            assert association.acceptor.maximum_length == 8192
            # A fragment of a data set that follows no command is read, and left alone.
            head = b"\x04\0" + struct.pack(">L", length) + struct.pack(">LBB", length - 4, 1, 0)
            association.dul.socket.socket.sendall(head + bytes(length - 6))
            if aborted:
                wait_for(lambda: association.is_aborted)
                wait_for(lambda: "it sent a PDU of 8193 bytes, and may send 8192" in audited(node))
            else:
                assert store(association, 1) == (0, "")


def test_a_message_without_end_that_nobody_wants_fills_no_memory(tmp_path: Path) -> None:
    with running(tmp_path) as node, associated(node.port) as association:
        fragment = b"\x04\0" + struct.pack(">L", 65536) + struct.pack(">LBB", 65532, 1, 0) + bytes(65530)
        peer = association.dul.socket.socket
        with suppress(OSError):  # it may hear of its end before it has sent all
            for _ in range(20):
                peer.sendall(fragment)
        wait_for(lambda: association.is_aborted)


def test_a_caller_has_its_own_time_to_be_silent(tmp_path: Path) -> None:
    callers = (Caller(ae_title="TESTER", idle_seconds=0.5), Caller(ae_title="CT1"))
    with running(tmp_path, callers=callers) as node, associated(node.port, calling="CT1") as patient:
        with associated(node.port) as association:
            wait_for(lambda: association.is_aborted)
        assert store(patient, 1) == (0, "")
    assert counted(node, "associations") == pytest.approx({"accepted": 1, "lost": 1})


def heard(port: int, calling: str) -> bytes:
    """All that a peer hears that asks for an association."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        return asking(peer, calling)


def asking(peer: socket.socket, calling: str) -> bytes:
    titles = b"M3NODE".ljust(16) + calling.encode().ljust(16)
    item = b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1"
    context = b"\x30\0\0\x11" + VERIFICATION.encode() + b"\x40\0\0\x13" + EXPLICIT.encode()
    item += b"\x20\0" + struct.pack(">H", len(context) + 4) + b"\1\0\0\0" + context
    item += b"\x50\0\0\x08\x51\0\0\4\0\0\x40\0"
    body = b"\0\1\0\0" + titles + bytes(32) + item
    peer.sendall(b"\1\0" + struct.pack(">L", len(body)) + body)
    return peer.recv(1000)


def test_who_calls_from_elsewhere_hears_what_an_unknown_title_hears(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    callers = (
        Caller(ae_title="FAR", addresses=(IPv4Network("10.0.0.0/8"),)),
        Caller(ae_title="NEAR", addresses=(IPv4Network("10.0.0.0/8"), IPv4Network("127.0.0.0/30"))),
    )
    with running(tmp_path, callers=callers) as node:
        assert heard(node.port, "FAR") == heard(node.port, "NOBODY") == b"\3\0\0\0\0\4\0\1\1\3"
        assert heard(node.port, "NEAR")[0] == 2
        said = audited(node)
        assert "its address is not in addresses of listener.callers FAR" in said
        assert "add it to listener.callers" in said
    log = capfd.readouterr().err
    assert "rejected an association from FAR at 127.0.0.1 to M3NODE: calling AE title not recognized (its add" in log
    about = re.findall(r"rejected an association from \w+ .* \[1/1/3\] \[association=(\d+)\]", log)
    assert len(set(about)) == 2
    assert counted(node, "associations")["rejected"] == 2


def test_who_is_refused_over_and_over_fills_neither_log_nor_audit_trail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as node:
        for _ in range(30):
            assert rejection(node.port, calling="STRANGER") == (1, 1, 3)
    log = capfd.readouterr().err
    assert log.count("rejected an association from STRANGER") == 4
    assert "[1/1/3]: and 27 more within a minute" in log
    assert audited(node).count("listener.callers") == 2  # the first one, and how often it came again


class Broken(OpenDesk):
    def admit(self, title: str) -> Grant:
        raise RuntimeError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_of_our_own_while_it_is_decided_accepts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenDesk, "admit", Broken.admit)
    with in_this_process(tmp_path) as here:
        assert heard(here.port, "TESTER") == b""
