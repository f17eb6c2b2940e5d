"""Peers that drip, break off, talk nonsense or never end harm their own association and no other."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA
from receiving import (
    Here,
    Node,
    associated,
    in_this_process,
    named,
    raw_store,
    running,
    store_request,
    tiny,
)

from m3node.intake.receive.association import read_leases
from part10_file import split_file
from waiting import wait_for


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("peers"), maximum_pdu_size=16384) as node:
        yield node


@pytest.fixture
def association(node: Node) -> Iterator[Association]:
    with associated(node.port) as association:
        assert association.is_established
        yield association


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with in_this_process(tmp_path) as here:
        yield here


def test_a_peer_that_drips_its_request_loses_its_place(tmp_path: Path) -> None:
    with (
        in_this_process(tmp_path, request_seconds=0.5) as here,
        socket.create_connection(("127.0.0.1", here.port), timeout=30) as peer,
    ):
        peer.sendall(b"\x01\0" + struct.pack(">L", 1000))  # a request of 1000 bytes is announced

        def dripped() -> bool:
            time.sleep(0.1)
            return hung_up(peer, b"\0")

        wait_for(dripped, seconds=20)  # all of the request would take 100 s


def test_an_association_that_does_not_end_is_aborted_when_the_node_stops(here: Here) -> None:
    with associated(here.port) as association:
        assert association.is_established
        here.receiver.drain(0.1)
        wait_for(lambda: association.is_aborted)
    (lease,) = read_leases(here.folder / "associations")
    wait_for(lambda: read_leases(lease.path.parent)[0].closed_at is not None)


def test_an_association_whose_peer_is_gone_ends_when_it_is_interrupted(here: Here) -> None:
    with associated(here.port) as association:
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        here.receiver.drain(0.0)  # and the fixture waits for its thread


def test_a_peer_that_goes_on_sending_after_the_abort_is_hung_up_on(here: Here) -> None:
    release = b"\x05\0" + struct.pack(">L", 4) + bytes(4)
    with socket.create_connection(("127.0.0.1", here.port), timeout=30) as peer:
        peer.sendall(b"\x04\0" + struct.pack(">L", 6) + b"\0\0\0\2\1\3")  # data before a request: aborted
        wait_for(lambda: hung_up(peer, release))


def test_noise_is_answered_by_one_abort_however_many_pdus_it_might_be(here: Here) -> None:
    assert talk(here.port, b"\xff\0\0\0\0\0" * 100_000) == b"\x07\0\0\0\0\x04\0\0\0\0"


def hung_up(peer: socket.socket, message: bytes) -> bool:
    try:
        peer.sendall(message)
    except ConnectionError:
        return True
    return False


def talk(port: int, message: bytes) -> bytes:
    """Send bytes; return what comes back until the node closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        received = b""
        peer.sendall(message)
        peer.shutdown(socket.SHUT_WR)
        try:
            while piece := peer.recv(4096):
                received += piece
        except ConnectionResetError:
            pass
        return received


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", id="http"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x01\x00", id="half a head"),
        pytest.param(b"\x01\x00\x00\x00\x01\x00abc", id="half a request"),
        pytest.param(b"\x01\x00\xff\xff\xff\xff", id="four gigabytes announced"),
        pytest.param(b"\x01\x00" + struct.pack(">L", 100) + b"\xff" * 100, id="a request of noise"),
        pytest.param(b"\x04\x00" + struct.pack(">L", 6) + b"\0\0\0\2\1\3", id="data before a request"),
        pytest.param(b"\x05\x00\0\0\0\4\0\0\0\0", id="a release before a request"),
    ],
)
def test_noise_ends_its_connection_and_nothing_else(node: Node, association: Association, noise: bytes) -> None:
    answer = talk(node.port, noise)
    assert answer == b"" or answer[0] in (0x07, 0x03)  # closed, aborted or rejected
    response = raw_store(association, tiny(named(5)), sop_instance="2.25.3.5")
    assert response is not None
    assert response.Status == 0x0000


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.binary(min_size=1, max_size=60), control=st.integers(0, 255))
def test_any_bytes_inside_an_association_harm_only_that_association(node: Node, value: bytes, control: int) -> None:
    with associated(node.port) as association:
        body = struct.pack(">LBB", len(value) + 2, 1, control) + value
        association.dul.socket.socket.sendall(b"\x04\0" + struct.pack(">L", len(body)) + body)
        if association.is_established:
            association.abort()
    with associated(node.port) as association:
        assert association.is_established


def pdus(data: bytes, *, sop_instance: str, largest: int) -> list[P_DATA]:
    """A C-STORE request as its fragments; ``largest`` 0 keeps command and data set whole."""
    message = C_STORE_RQ()
    message.primitive_to_message(store_request(data, sop_instance=sop_instance))
    return list(message.encode_msg(1, largest))


@pytest.mark.parametrize("end", ["abort", "close"])
def test_an_instance_that_breaks_off_is_not_stored(node: Node, end: str) -> None:
    with associated(node.port) as association:
        known = {lease.id for lease in node.leases().live(time.time())}
        assert known
        for pdata in pdus(tiny(named(8), bytes(50_000)), sop_instance="2.25.3.8", largest=16384)[:-1]:
            association.dul.send_pdu(pdata)
        if end == "abort":
            association.abort()
        else:
            wait_for(association.dul.to_provider_queue.empty)
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: not known & {lease.id for lease in node.leases().live(time.time())})
    assert not any("2.25.3.8" in name or name.endswith(".part") for name in node.stored())


def test_a_second_message_before_the_first_is_answered_aborts_and_stores_no_mixture(node: Node) -> None:
    first, second = tiny(named(6)), tiny(named(7))
    body = b""
    for data, uid in ((first, "2.25.3.6"), (second, "2.25.3.7")):
        for pdata in pdus(data, sop_instance=uid, largest=0):
            for context, value in pdata.presentation_data_value_list:
                body += struct.pack(">LB", len(value) + 1, context) + value
    with associated(node.port) as association:
        association.dul.socket.socket.sendall(b"\x04\0" + struct.pack(">L", len(body)) + body)
        wait_for(lambda: association.is_aborted)
    # The abort may be heard before the first one's answer, or instead of it.
    stored = [name for name in node.stored() if name.endswith(("/2.25.3.6.dcm", "/2.25.3.7.dcm"))]
    assert [split_file(node.layout.spool / name)[1] for name in stored] in ([], [first])
