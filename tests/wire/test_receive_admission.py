"""Who may open an association, and what the others hear."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from receiving import CT, EXPLICIT, Node, associated, named, raw_store, rejection, running, tiny

from m3node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from m3node.settings import Caller
from waiting import wait_for

MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    callers = (Caller(ae_title="TESTER"), Caller(ae_title="CT 1"))
    with running(tmp_path_factory.mktemp("admission"), callers=callers) as node:
        yield node


def test_a_known_caller_is_echoed(node: Node) -> None:
    with associated(node.port, (VERIFICATION, EXPLICIT)) as association:
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000


def test_the_node_says_who_it_is_and_how_much_it_takes_at_once(tmp_path: Path) -> None:
    with running(tmp_path, maximum_pdu_size=20_000) as node, associated(node.port) as association:
        accepted = association.acceptor
        assert (accepted.implementation_class_uid, accepted.implementation_version_name) == (
            IMPLEMENTATION_CLASS_UID,
            IMPLEMENTATION_VERSION,
        )
        assert accepted.maximum_length == 20_000


def test_a_title_with_a_space_inside_is_a_title(node: Node) -> None:
    with associated(node.port, (VERIFICATION, EXPLICIT), calling="CT 1") as association:
        assert association.is_established


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        pytest.param("STRANGER", "M3NODE", (1, 1, 3), id="unknown caller"),
        pytest.param("tester", "M3NODE", (1, 1, 3), id="titles are case sensitive"),
        pytest.param("TESTER", "OTHER", (1, 1, 7), id="wrong called title"),
        pytest.param("STRANGER", "OTHER", (1, 1, 3), id="a stranger does not hear that he calls somebody else"),
    ],
)
def test_others_are_rejected_with_the_reason_of_the_standard(
    node: Node, calling: str, called: str, reason: tuple[int, int, int]
) -> None:
    assert rejection(node.port, calling=calling, called=called) == reason


def test_one_association_too_many_is_rejected_as_transient_and_room_comes_back(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=2) as node:
        with associated(node.port) as first, associated(node.port) as second:
            assert first.is_established
            assert second.is_established
            assert rejection(node.port) == (2, 3, 2)
            # A stranger is not told how busy the node is.
            assert rejection(node.port, calling="STRANGER") == (1, 1, 3)
        wait_for(lambda: rejection(node.port) is None)


def test_connections_that_wait_to_be_refused_take_no_room(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=1) as node, ExitStack() as silent:
        with associated(node.port) as first:
            assert first.is_established
            for _ in range(3):  # load balancers' probes, which say nothing
                silent.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=30))
            assert rejection(node.port) == (2, 3, 2)
        wait_for(lambda: rejection(node.port) is None)


def test_dcmtk_echoes(node: Node, program: Callable[[str], str]) -> None:
    echo = [program("echoscu"), "-aet", "TESTER", "-aec", "M3NODE", "127.0.0.1", str(node.port)]
    assert subprocess.run(echo, check=False).returncode == 0
    echo[2] = "STRANGER"
    rejected = subprocess.run(echo, check=False, capture_output=True, text=True)
    assert rejected.returncode != 0
    assert "Calling AE Title Not Recognized" in rejected.stderr


def test_dcmtk_stores(node: Node, program: Callable[[str], str], test_data: Path) -> None:
    send = [program("storescu"), "-aet", "TESTER", "-aec", "M3NODE", "+sd", "127.0.0.1", str(node.port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    assert subprocess.run([*send, str(test_data / "ct_liver_3slice")], check=False, env=environment).returncode == 0
    assert sum("1.2.392.200103" in name for name in node.stored()) == 3


def test_every_refusal_is_logged_with_its_reason_and_no_patient(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, max_associations=1) as node:
        assert rejection(node.port, calling="STRANGER")
        assert rejection(node.port, called="OTHER")
        wait_for(lambda: rejection(node.port, sop_class=MR) is None)
        contexts = ((CT, "1.2.840.10008.1.2.4.51"), (CT, EXPLICIT), (MR, EXPLICIT))

        def accepted() -> bool:
            with associated(node.port, *contexts) as association:
                if not association.is_established:
                    return False
                patient = b"\x10\x00\x10\x00PN\x08\x00Doe^Jane"
                raw_store(association, tiny(named(1), patient), sop_instance="2.25.3.1")
                raw_store(association, patient, sop_instance="2.25.3.1")
                assert rejection(node.port) == (2, 3, 2)
                return True

        wait_for(accepted)
    log = capfd.readouterr().err
    for line in (
        "rejected an association from STRANGER at 127.0.0.1 to M3NODE: calling AE title not recognized",
        "rejected an association from TESTER at 127.0.0.1 to OTHER: called AE title not recognized",
        "local limit exceeded (listener.max_associations) [2/3/2]",
        "nothing that TESTER offers is accepted here: MR Image Storage",
        "refused CT Image Storage from TESTER in JPEG Extended (Process 2 and 4) (1.2.840.10008.1.2.4.51)",
        "refused instance 2.25.3.1 from TESTER with status 0xC002",
        "association from TESTER released: 1 new, 0 duplicate, 0 revised, 1 refused",
    ):
        assert line in log
    assert "Doe" not in log
    assert "Traceback" not in log


def test_a_node_without_callers_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path, callers=()) as node:
        assert rejection(node.port) == (1, 1, 3)
    assert "listener.callers is empty" in caplog.text
