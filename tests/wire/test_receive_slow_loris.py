"""Two hundred silent connections and some that drip keep nothing from an honest sender, with and without TLS."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE
from receiving import CT, EXPLICIT, Node, named, raw_store, running, tiny

from certified import Authority, caller
from m3node.settings import ListenerTls
from waiting import wait_for

IDLE, DRIPPING, SENT = 200, 5, 50
BEGUN = {False: b"\x01\0\0\1\0\0", True: b"\x16\x03\x01\x40\0"}
"""What those that drip have announced: 64 KiB of a request, 16 KiB of a handshake."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def listening(folder: Path, authority: Authority) -> Iterator[Node]:
    """A node with both ports, fewer associations than there are silent connections, and time for all of them."""
    shown = authority.issue("node")
    tls = ListenerTls(
        port=0,
        certificate_file=shown.certificate,
        key_file=shown.key,
        client_certificates="none",
        handshake_seconds=600,
    )
    with running(folder, tls=tls, max_associations=4, max_waiting=IDLE + 50, request_seconds=600.0) as node:
        yield node


@contextmanager
def loris(port: int, begun: bytes) -> Iterator[list[int]]:
    """Peers that say nothing, and some that never come to the end of what they say; counts the bytes of these."""
    dripped, enough = [0], threading.Event()
    with ExitStack() as peers:
        sockets = [peers.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(IDLE)]
        for peer in sockets[:DRIPPING]:
            peer.sendall(begun)

        def drip() -> None:
            while not enough.wait(0.05):
                for peer in sockets[:DRIPPING]:
                    peer.sendall(b"\0")
                    dripped[0] += 1

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        try:
            yield dripped
        finally:
            enough.set()
            thread.join()


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
def test_an_honest_sender_is_served_beside_silent_and_dripping_peers(
    tmp_path: Path, authority: Authority, over_tls: bool
) -> None:
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(CT, EXPLICIT)
    with listening(tmp_path, authority) as node:
        port = node.tls_port if over_tls else node.port
        with loris(port, BEGUN[over_tls]) as dripped:
            wait_for(lambda: dripped[0] > DRIPPING)
            tls = (caller(authority.file), "127.0.0.1") if over_tls else None
            for first in range(0, SENT, 10):
                association = ae.associate("127.0.0.1", port, ae_title="M3NODE", tls_args=tls)
                assert association.is_established
                for number in range(first, first + 10):
                    answer = raw_store(association, tiny(named(number)), sop_instance=f"2.25.3.{number}")
                    assert answer is not None
                    assert answer.Status == 0x0000
                association.release()
            seen = dripped[0]
            wait_for(lambda: dripped[0] > seen)  # they have not been sent away
        assert len([name for name in node.stored() if name.endswith(".dcm")]) == SENT
