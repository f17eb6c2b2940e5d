"""A report of storage commitment is on disk before its sender is answered, whoever else talks to the listener."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from committing import COMMITMENT, INSTANCE, instances, report, reporter, send
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from receiving import CT, Node, in_this_process, named, raw_store, rejection, running, tiny

from m3node.intake.receive.commitment import Report, acted_file, file_away, read_report, report_file
from m3node.settings import Caller, Destination
from waiting import wait_for

VERIFICATION = "1.2.840.10008.1.1"
TRANSACTION = "2.25.77"
DESTINATIONS = (
    Destination(name="pacs", ae_title="PACS", host="127.0.0.1", commitment=True),
    Destination(name="viewer", ae_title="VIEWER", host="127.0.0.1"),
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    callers = (Caller(ae_title="TESTER"),)
    with running(tmp_path_factory.mktemp("reports"), callers=callers, destinations=DESTINATIONS) as node:
        yield node


@pytest.fixture(autouse=True)
def _nothing_reported(node: Node) -> Iterator[None]:
    yield
    for path in node.layout.commitments.rglob("*.json"):
        path.unlink()


def kept(node: Node, transaction: str = TRANSACTION) -> Report:
    return read_report(report_file(node.layout, transaction))


def test_a_report_is_kept_with_what_was_committed_and_what_failed_and_why(node: Node) -> None:
    one, two, three = instances(3)
    with reporter(node.port) as association:
        assert send(association, report(TRANSACTION, [one, two], [three], 0x0119), 2) == 0x0000
        found = kept(node)
        assert association.is_established
    assert (found.sender, found.event_type) == ("PACS", 2)
    assert [item.sop_instance_uid for item in found.committed] == [one, two]
    assert [(item.sop_instance_uid, item.reason) for item in found.failed] == [(three, 0x0119)]


@pytest.mark.parametrize(
    ("proposed", "answered"),
    [
        pytest.param((False, True), (False, True), id="as the SCP, like Orthanc"),
        pytest.param((True, True), (False, True), id="as both"),
        pytest.param(None, None, id="without a role item"),
    ],
)
def test_the_peers_role_is_negotiated_or_left_out(
    node: Node, proposed: tuple[bool, bool] | None, answered: tuple[bool, bool] | None
) -> None:
    # A peer that proposes no role may not send the request by pynetdicom's rules, but by many others' it does.
    with reporter(node.port, roles=proposed) as association:
        assert association.is_established
        replied = association.acceptor.role_selection.get(COMMITMENT)
        assert (replied and (replied.scu_role, replied.scp_role)) == answered
        association.accepted_contexts[0]._as_scp = True
        assert send(association, report(TRANSACTION, instances(1))) == 0x0000
    assert kept(node).transaction_uid == TRANSACTION


def test_a_peer_that_wants_to_ask_for_commitment_is_refused_that_context(node: Node) -> None:
    with reporter(node.port, COMMITMENT, VERIFICATION, roles=(True, False)) as association:
        assert {context.abstract_syntax for context in association.rejected_contexts} == {COMMITMENT}


def test_a_report_that_comes_again_is_acknowledged_and_the_first_one_counts(node: Node) -> None:
    (uid,) = instances(1)
    with reporter(node.port) as association:
        assert send(association, report(TRANSACTION, [uid])) == 0x0000
        assert send(association, report(TRANSACTION, failed=[uid]), 2) == 0x0000
        assert kept(node).event_type == 1
        file_away(report_file(node.layout, TRANSACTION), "acted")
        assert send(association, report(TRANSACTION, failed=[uid]), 2) == 0x0000
    assert not report_file(node.layout, TRANSACTION).exists()
    assert read_report(acted_file(node.layout, TRANSACTION)).event_type == 1


def test_five_thousand_items_in_one_report_and_a_hundred_reports_on_one_association(node: Node) -> None:
    with reporter(node.port) as association:
        assert send(association, report("2.25.78", instances(5000))) == 0x0000
        assert len(kept(node, "2.25.78").committed) == 5000
        for number in range(100):
            assert send(association, report(f"2.25.79.{number}", instances(2))) == 0x0000
    assert len(list(node.layout.commitments.glob("2.25.79.*.json"))) == 100


def test_a_transaction_that_the_node_never_began_is_kept_as_well_since_the_listener_cannot_know(node: Node) -> None:
    with reporter(node.port) as association:
        assert send(association, report("1.2.3.4.5", instances(1))) == 0x0000
    assert kept(node, "1.2.3.4.5").sender == "PACS"


@pytest.mark.parametrize(
    ("information", "event_type", "status"),
    [
        pytest.param(report(TRANSACTION, instances(1)), 3, 0x0113, id="another event type"),
        pytest.param(None, 1, 0x0115, id="no event information"),
        pytest.param(report("../../spool/x", instances(1)), 1, 0x0115, id="a path for a UID"),
        pytest.param(report("", instances(1)), 1, 0x0115, id="no transaction"),
    ],
)
def test_what_is_no_report_is_refused_with_its_status_and_the_association_goes_on(
    node: Node, information: Dataset | None, event_type: int, status: int
) -> None:
    before = {path for path in node.layout.root.rglob("*") if path.suffix == ".json"}
    with reporter(node.port) as association:
        assert send(association, information, event_type) == status
        assert {path for path in node.layout.root.rglob("*") if path.suffix == ".json"} == before
        assert send(association, report(TRANSACTION, instances(1))) == 0x0000


@pytest.mark.parametrize("noise", [b"\xff" * 50, b"\x08\x00", b"\x08\x00\x95\x11SQ\0\0\xff\xff\xff\xff12345678"])
def test_event_information_that_is_no_data_set_is_refused(node: Node, noise: bytes) -> None:
    with reporter(node.port) as association:
        assert _raw(association, noise) == 0x0115
    assert not report_file(node.layout, TRANSACTION).exists()


def test_a_report_that_would_fill_the_memory_is_refused(node: Node) -> None:
    information = report(TRANSACTION, instances(1))
    information.add_new(0x00091001, "OB", b"x" * 5 * 1024 * 1024)
    with reporter(node.port) as association:
        assert send(association, information) == 0x0115
        assert not report_file(node.layout, TRANSACTION).exists()
        assert send(association, report(TRANSACTION, instances(1))) == 0x0000


def test_an_event_of_another_class_is_refused(node: Node) -> None:
    with reporter(node.port) as association:
        encoded = _encoded(association, report(TRANSACTION, instances(1)))
        assert _raw(association, encoded, sop_class="1.2.840.10008.1.40") == 0x0118
    assert not report_file(node.layout, TRANSACTION).exists()


def _encoded(association: object, information: Dataset) -> bytes:
    syntax = association.accepted_contexts[0].transfer_syntax[0]
    encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
    assert encoded is not None
    return encoded


def _raw(association: object, encoded: bytes, *, sop_class: str = COMMITMENT) -> int:
    """Send any bytes as event information; return the status of the answer."""
    statuses = []
    heard = threading.Event()

    def hear(event: evt.Event) -> None:
        statuses.append(event.message.command_set.Status)
        heard.set()

    association.bind(evt.EVT_DIMSE_RECV, hear)
    association.dimse.send_msg(_request(encoded, sop_class), association.accepted_contexts[0].context_id)
    assert heard.wait(30)
    association.unbind(evt.EVT_DIMSE_RECV, hear)
    return int(statuses[0])


def _request(encoded: bytes, sop_class: str = COMMITMENT) -> N_EVENT_REPORT:
    request = N_EVENT_REPORT()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = INSTANCE
    request.EventTypeID = 1
    request.EventInformation = BytesIO(encoded)
    return request


def test_a_peer_that_releases_right_behind_its_report_gets_its_answer_first(node: Node) -> None:
    heard: list[str] = []
    with reporter(node.port) as association:
        association.bind(evt.EVT_DIMSE_RECV, lambda event: heard.append(type(event.message).__name__))
        encoded = _encoded(association, report(TRANSACTION, instances(1)))
        association.dimse.send_msg(_request(encoded), association.accepted_contexts[0].context_id)
        association.release()
        assert association.is_released
    assert heard == ["N_EVENT_REPORT_RSP"]
    assert kept(node).transaction_uid == TRANSACTION


@pytest.mark.parametrize(
    ("trouble", "status"),
    [pytest.param(errno.ENOSPC, 0x0213, id="full"), pytest.param(errno.EIO, 0x0110, id="broken")],
)
def test_a_disk_that_refuses_is_said_and_the_report_may_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: int, status: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(trouble, os.strerror(trouble))

    with (
        in_this_process(tmp_path, destinations=DESTINATIONS) as here,
        reporter(here.port) as association,
    ):
        with monkeypatch.context() as patch:
            patch.setattr("m3node.durable.os.fdatasync", refuse)
            assert send(association, report(TRANSACTION, instances(1))) == status
        assert list((here.folder / "commitments").iterdir()) == []
        assert send(association, report(TRANSACTION, instances(1))) == 0x0000
        assert (here.folder / "commitments" / f"{TRANSACTION}.json").exists()


def test_only_a_destination_that_is_asked_may_report(node: Node) -> None:
    assert rejection(node.port, calling="VIEWER", sop_class=COMMITMENT) == (1, 1, 3)
    assert rejection(node.port, calling="STRANGER", sop_class=COMMITMENT) == (1, 1, 3)
    with reporter(node.port, COMMITMENT, VERIFICATION, calling="TESTER") as association:
        assert {context.abstract_syntax for context in association.rejected_contexts} == {COMMITMENT}


def test_a_destination_that_is_no_caller_may_report_and_verify_and_not_store(node: Node) -> None:
    with reporter(node.port, COMMITMENT, VERIFICATION, CT) as association:
        assert {context.abstract_syntax for context in association.rejected_contexts} == {CT}
        assert association.send_c_echo().Status == 0x0000
        assert send(association, report(TRANSACTION, instances(1))) == 0x0000
        for context in association.accepted_contexts:
            answer = raw_store(
                association,
                tiny(named(1, str(context.abstract_syntax))),
                sop_class=str(context.abstract_syntax),
                sop_instance="2.25.3.1",
                context_id=context.context_id,
            )
            assert answer is not None
            assert answer.Status == 0x0122
    assert node.stored() == set()
    assert "PACS" not in {lease.calling for lease in node.leases().leases.values()}


def test_a_destination_that_is_a_caller_too_stores_and_reports_on_one_association(tmp_path: Path) -> None:
    with (
        running(tmp_path, callers=(Caller(ae_title="PACS"),), destinations=DESTINATIONS) as node,
        reporter(node.port, COMMITMENT, CT) as association,
    ):
        context = next(item for item in association.accepted_contexts if item.abstract_syntax == CT)
        answer = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1", context_id=context.context_id)
        assert answer is not None
        assert answer.Status == 0x0000
        assert send(association, report(TRANSACTION, instances(1))) == 0x0000
        assert kept(node).sender == "PACS"
        assert len(node.stored()) == 1


def test_a_report_in_small_pieces_arrives_whole(node: Node) -> None:
    with reporter(node.port) as association:
        association.acceptor.primitive.maximum_length_received = 128
        assert send(association, report(TRANSACTION, instances(50))) == 0x0000
    assert len(kept(node).committed) == 50


def test_who_said_what_is_logged_by_uid_and_number(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path, destinations=DESTINATIONS) as node, reporter(node.port) as association:
        assert send(association, report(TRANSACTION, instances(2), [instances(3)[2]]), 2) == 0x0000
        assert send(association, report(TRANSACTION, instances(2))) == 0x0000
        assert send(association, report(TRANSACTION, instances(2)), 9) == 0x0113
    log = capfd.readouterr().err
    for line in (
        "association from PACS at 127.0.0.1, which may report and not store",
        f"storage commitment of transaction {TRANSACTION} from PACS: 2 committed, 1 failed [",
        f"storage commitment of transaction {TRANSACTION} from PACS: 2 committed, 0 failed (reported before)",
        "refused a report from PACS with status 0x0113: no event type 9",
    ):
        assert line in log
    assert "Traceback" not in log


def test_a_context_that_was_not_accepted_ends_the_association(node: Node) -> None:
    with reporter(node.port) as association:
        request = _request(_encoded(association, report(TRANSACTION, instances(1))))
        association.dimse.send_msg(request, 99)
        wait_for(lambda: association.is_aborted)
    assert not report_file(node.layout, TRANSACTION).exists()


@pytest.mark.parametrize(("point", "on_disk"), [("report.before", False), ("report.after", True)])
def test_a_receiver_killed_over_a_report_has_not_acknowledged_it_and_takes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, on_disk: bool
) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    monkeypatch.setenv("M3NODE_TEST_FAULTS", str(faults))
    with running(tmp_path, destinations=DESTINATIONS) as node:
        (faults / point).touch()
        with reporter(node.port) as association:
            assert send(association, report(TRANSACTION, instances(1))) is None
        assert report_file(node.layout, TRANSACTION).exists() == on_disk
        assert list(faults.iterdir()) == []

        def acknowledged() -> bool:
            with reporter(node.port) as association:
                return association.is_established and send(association, report(TRANSACTION, instances(1))) == 0x0000

        wait_for(acknowledged)
    assert len(list(node.layout.commitments.iterdir())) == 1
