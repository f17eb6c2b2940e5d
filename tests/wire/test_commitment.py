"""A destination is asked to commit to what it has stored, and how it answers decides what becomes of the delivery."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from committing import (
    COMMITMENT,
    IMPATIENT,
    INSTANCE,
    NAME,
    NOW,
    PATIENT,
    SEG_CLASS,
    Asked,
    Here,
    here,
    report,
    report_anew,
    report_here,
    reported,
    send,
)
from pynetdicom import evt
from pynetdicom.dimse_messages import N_ACTION_RSP
from pynetdicom.dul import DULServiceProvider
from pynetdicom.events import Event
from receiving import Node, running

from fake_pacs import FakePacs, fake_pacs
from m3node.delivery import commitment
from m3node.delivery.commitment import after_store, overdue, review_stored
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.state import DeliveryState
from m3node.intake.receive.commitment import Report, keep_report
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings, Destination
from waiting import wait_for


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", commitment=True)
    with running(tmp_path_factory.mktemp("listening"), destinations=[pacs]) as node:
        yield node


@pytest.fixture(autouse=True)
def _nothing_reported(node: Node) -> Iterator[None]:
    yield
    for path in [*node.layout.commitments.rglob("*.json"), *node.layout.outbox.rglob("*.json")]:
        path.unlink()


@pytest.fixture
def _lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the report on the same association however busy the machine is; it ends when the report came."""
    monkeypatch.setattr(commitment, "LINGER_SECONDS", 60.0)


def at(node: Node, pacs: FakePacs, delivery: DeliverySettings = PATIENT) -> Here:
    """The object in the data folder of the listener, as both roles share it."""
    return here(node.layout.root, pacs, delivery)


@pytest.mark.usefixtures("_lingering")
def test_a_report_on_the_same_association_confirms_at_once(tmp_path: Path) -> None:
    asked = Asked(after=report_here)
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        after = it.stored()
    assert (after.state, after.stored_at, after.requested_at, after.finished_at) == (
        DeliveryState.CONFIRMED,
        NOW,
        NOW,
        NOW,
    )
    assert asked.transactions == [after.transaction_uid]
    assert asked.instances == [[after.sop_instance_uid]]
    assert asked.requests == [(1, COMMITMENT, INSTANCE, {SEG_CLASS})]
    assert waiting(box_of(it.layout, "pacs")) == ()
    assert it.reports("acted") == asked.transactions


def test_a_report_on_a_new_association_to_the_listener_confirms(node: Node) -> None:
    asked = Asked(after=report_anew(node.port))
    with fake_pacs(commit=asked) as pacs:
        it = at(node, pacs)
        it.stored()
        wait_for(lambda: it.sweep() or it.entry.state is DeliveryState.CONFIRMED)
    assert it.entry.state is DeliveryState.CONFIRMED
    assert pacs.associations == 1


def test_a_report_that_comes_before_the_answer_to_the_request_confirms(node: Node) -> None:
    with fake_pacs(commit=Asked(react=report_anew(node.port))) as pacs:
        it = at(node, pacs)
        assert it.stored().state is DeliveryState.CONFIRMED


def test_the_word_of_another_destination_that_comes_meanwhile_confirms_nothing(tmp_path: Path) -> None:
    box: list[Here] = []

    def another_reports(event: Event, transaction: str, uids: list[str]) -> None:
        reported(box[0], transaction, uids, sender="OTHER")

    with fake_pacs(commit=Asked(react=another_reports)) as pacs:
        box.append(here(tmp_path, pacs))
        after = box[0].stored()
    assert (after.state, after.requested_at) == (DeliveryState.STORED, NOW)


def test_a_report_that_the_sweep_acts_on_before_our_next_line_is_not_undone(node: Node) -> None:
    box: list[Here] = []

    def report_and_sweep(event: Event, transaction: str, uids: list[str]) -> None:
        report_anew(node.port, failed=True)(event, transaction, uids)
        assert [entry.state for entry in box[0].sweep()] == [DeliveryState.WAITING]

    with fake_pacs(commit=Asked(react=report_and_sweep)) as pacs:
        box.append(at(node, pacs))
        after = box[0].stored()
    assert (after.state, after.requested_at, after.stored_at) == (DeliveryState.WAITING, 0.0, 0.0)


def test_without_a_report_it_stays_stored_and_goes_again_when_the_time_is_over(tmp_path: Path) -> None:
    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        after = it.stored()
        assert (after.state, after.requested_at, after.attempts) == (DeliveryState.STORED, NOW, 0)
        assert after_store(it.layout, it.destination, after, it.settings, NOW + 1) == after
        assert len(asked.transactions) == 1
    assert not overdue(after, NOW + 3599, PATIENT)
    assert review_stored(it.layout, it.settings, NOW + 3599) == []
    assert overdue(after, NOW + 3600, PATIENT)
    (again,) = review_stored(it.layout, it.settings, NOW + 3600)
    assert again == it.entry
    assert (again.state, again.stored_at, again.requested_at, again.attempts) == (DeliveryState.WAITING, 0.0, 0.0, 1)
    assert again.last_error == "no report of its commitment within 3600 s"
    assert again.not_before == NOW + 3602
    assert review_stored(it.layout, it.settings, NOW + 9000) == []


def test_an_object_that_the_peer_does_not_commit_to_goes_again_with_the_reason_and_back_off(node: Node) -> None:
    asked = Asked(react=report_anew(node.port, failed=True))
    with fake_pacs(commit=asked) as pacs:
        it = at(node, pacs)
        for attempt, delay in enumerate((2.0, 4.0, 8.0, 8.0), 1):
            after = it.stored()
            assert (after.state, after.attempts, after.not_before) == (DeliveryState.WAITING, attempt, NOW + delay)
            assert after.last_error == "not committed to: 0x0112 no such object instance"
            assert after.failing_since == NOW
    assert len(set(asked.transactions)) == 4


def test_a_peer_that_always_fails_is_given_up_after_the_time_that_is_set(node: Node) -> None:
    asked = Asked(react=report_anew(node.port, failed=True))
    with fake_pacs(commit=asked) as pacs:
        it = at(node, pacs, PATIENT.model_copy(update={"give_up_hours": 1.0}))
        assert it.stored(NOW).state is DeliveryState.WAITING
        assert it.stored(NOW + 3599).state is DeliveryState.WAITING
        after = it.stored(NOW + 3600)
    assert after.state is DeliveryState.DEAD
    assert after.last_error == "not committed to: 0x0112 no such object instance"
    assert (box_of(it.layout, "pacs").aside / f"{NAME}.json").exists()
    assert waiting(box_of(it.layout, "pacs")) == ()


def never(event: Event) -> int:
    wait_for(lambda: not event.assoc.is_established)
    return 0x0000


def cut(event: Event) -> int:
    event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    return 0x0000


def abort(event: Event) -> int:
    event.assoc.abort()
    return 0x0000


@pytest.mark.usefixtures("_lingering")
@pytest.mark.parametrize("commit", [never, cut, abort])
def test_a_request_without_an_answer_is_asked_again_and_nothing_is_sent_again(tmp_path: Path, commit: object) -> None:
    with fake_pacs(commit=commit) as pacs:
        it = here(tmp_path, pacs, IMPATIENT)
        after = it.stored()
        assert (after.state, after.stored_at, after.requested_at) == (DeliveryState.STORED, NOW, 0.0)
        assert (after.attempts, after.not_before, after.failing_since) == (1, NOW + 2.0, NOW)
        assert "no answer to the request for commitment" in after.last_error
    asked = Asked(after=report_here)
    it.settings = it.settings.model_copy(update={"delivery": PATIENT})
    with fake_pacs(commit=asked, port=pacs.port):
        done = it.stored(NOW + 2)
    assert (done.state, done.stored_at, done.requested_at, done.last_error) == (
        DeliveryState.CONFIRMED,
        NOW,
        NOW + 2,
        "",
    )
    assert asked.transactions == [done.transaction_uid] != [after.transaction_uid]


def test_an_empty_answer_to_the_request_is_none_and_leaves_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = N_ACTION_RSP.primitive_to_message

    def strip(self: N_ACTION_RSP, primitive: object) -> None:
        plain(self, primitive)
        del self.command_set.Status

    monkeypatch.setattr(N_ACTION_RSP, "primitive_to_message", strip)
    with fake_pacs(commit=Asked()) as pacs:
        after = here(tmp_path, pacs).stored()
        wait_for(lambda: not ours_alive())
    assert (after.state, after.requested_at, after.not_before) == (DeliveryState.STORED, 0.0, NOW + 2.0)


def test_a_report_whose_requests_answer_was_lost_counts(node: Node) -> None:
    def report_and_cut(event: Event, transaction: str, uids: list[str]) -> None:
        report_anew(node.port)(event, transaction, uids)
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    with fake_pacs(commit=Asked(react=report_and_cut)) as pacs:
        assert at(node, pacs).stored().state is DeliveryState.CONFIRMED


def test_a_connection_that_is_cut_between_answer_and_report_gets_the_report_at_the_listener(node: Node) -> None:
    def cut_and_report(event: Event, transaction: str, uids: list[str]) -> None:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        report_anew(node.port)(event, transaction, uids)

    with fake_pacs(commit=Asked(after=cut_and_report)) as pacs:
        it = at(node, pacs)
        it.stored()
        wait_for(lambda: it.sweep() or it.entry.state is DeliveryState.CONFIRMED)


@pytest.mark.parametrize("status", [0x0110, 0x0213, 0x0210])
def test_a_peer_that_cannot_now_is_asked_again(tmp_path: Path, status: int) -> None:
    statuses = [0x0000, status]
    with fake_pacs(commit=Asked(lambda *_: statuses.pop())) as pacs:
        it = here(tmp_path, pacs)
        after = it.stored()
        assert (after.state, after.requested_at, after.not_before) == (DeliveryState.STORED, 0.0, NOW + 2.0)
        assert f"0x{status:04X}" in after.last_error
        assert review_stored(it.layout, it.settings, NOW + 9000) == []  # it is to be asked for, and not sent, again
        again = it.stored(NOW + 2)
    assert (again.state, again.requested_at, again.last_error) == (DeliveryState.STORED, NOW + 2, "")


@pytest.mark.parametrize("status", [0x0001, 0x0107, 0x0116])
def test_a_peer_that_warns_has_been_asked(tmp_path: Path, status: int) -> None:
    with fake_pacs(commit=Asked(lambda *_: status)) as pacs:
        after = here(tmp_path, pacs).stored()
    assert (after.state, after.requested_at, after.last_error) == (DeliveryState.STORED, NOW, "")


@pytest.mark.parametrize("status", [0x0112, 0x0118, 0x0123, 0x0124, 0xC001])
def test_a_peer_that_refuses_to_commit_makes_a_dead_letter_that_says_so(tmp_path: Path, status: int) -> None:
    with fake_pacs(commit=lambda event: status) as pacs:
        after = here(tmp_path, pacs).stored()
    assert after.state is DeliveryState.DEAD
    assert after.stored_at == NOW
    assert after.last_error.startswith(f"stored, but its commitment cannot be asked for: 0x{status:04X} ")


def test_a_peer_that_does_not_know_storage_commitment_makes_a_dead_letter(tmp_path: Path) -> None:
    with fake_pacs() as pacs:
        after = here(tmp_path, pacs).stored()
    assert after.state is DeliveryState.DEAD
    assert after.last_error.endswith("the peer does not accept Storage Commitment Push Model")


def test_nobody_there_to_be_asked_is_asked_later_and_given_up_in_the_end(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs, PATIENT.model_copy(update={"give_up_hours": 1.0}))
    after = it.stored()
    assert (after.state, after.not_before) == (DeliveryState.STORED, NOW + 2)
    assert "Connection refused" in after.last_error
    assert it.stored(NOW + 3600).state is DeliveryState.DEAD


@pytest.mark.usefixtures("_lingering")
def test_a_disk_that_refuses_the_report_is_said_to_the_peer_and_no_confirmation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    def say(event: Event, transaction: str, uids: list[str]) -> None:
        heard.append(send(event.assoc, report(transaction, uids)))

    monkeypatch.setattr(commitment, "keep_report", full)
    with fake_pacs(commit=Asked(after=say)) as pacs:
        after = here(tmp_path, pacs).stored()
        wait_for(lambda: heard)
    assert heard == [0x0213]
    assert (after.state, after.requested_at) == (DeliveryState.STORED, NOW)


@pytest.mark.usefixtures("_lingering")
@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        pytest.param({"event_type": 9}, 0x0113, id="another event type"),
        pytest.param({"sop_class": "1.2.840.10008.5.1.1.14"}, 0x0118, id="another class"),
        pytest.param({"transaction": "../../spool/x"}, 0x0115, id="a path for a UID"),
    ],
)
def test_what_is_no_report_is_refused_on_the_same_association_and_confirms_nothing(
    tmp_path: Path, wrong: dict[str, Any], status: int
) -> None:
    heard = []

    def say(event: Event, transaction: str, uids: list[str]) -> None:
        how = {"transaction": transaction, **wrong}
        heard.append(send(event.assoc, report(how.pop("transaction"), uids), **how))

    with fake_pacs(commit=Asked(after=say)) as pacs:
        it = here(tmp_path, pacs)
        after = it.stored()
        wait_for(lambda: heard)
    assert heard == [status]
    assert (after.state, after.requested_at) == (DeliveryState.STORED, NOW)
    assert list(it.layout.commitments.iterdir()) == []


@pytest.mark.usefixtures("_lingering")
def test_a_peer_hears_the_answer_to_its_report_before_the_association_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, released = [], []

    def keep_and_dawdle(layout: DataLayout, its: Report) -> bool:
        kept = keep_report(layout, its)
        time.sleep(0.5)  # the file is seen, and the answer has not left
        return kept

    def say(event: Event, transaction: str, uids: list[str]) -> None:
        heard.append(send(event.assoc, report(transaction, uids)))

    monkeypatch.setattr(commitment, "keep_report", keep_and_dawdle)
    with fake_pacs(commit=Asked(after=say), handlers=[(evt.EVT_RELEASED, released.append)]) as pacs:
        assert here(tmp_path, pacs).stored().state is DeliveryState.CONFIRMED
        wait_for(lambda: heard and released)
    assert heard == [0x0000]


def ours_alive() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if isinstance(t, DULServiceProvider) and t.assoc.is_requestor]


@pytest.mark.parametrize(
    "commit", [Asked(after=report_here), never, cut, abort], ids=["reports", "never", "cut", "abort"]
)
def test_no_thread_is_left_behind(tmp_path: Path, commit: Callable[[Event], int]) -> None:
    with fake_pacs(commit=commit) as pacs:
        here(tmp_path, pacs, IMPATIENT).stored()
        wait_for(lambda: not ours_alive())
