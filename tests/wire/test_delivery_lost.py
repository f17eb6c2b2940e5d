"""No peer, no association, no answer: nothing is taken for stored that was not, and nothing is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from delivering import (
    ENTRIES,
    IMPATIENT,
    PATIENT,
    QUICK,
    REPORT,
    RUN,
    SEG,
    courier_for,
    go,
    left,
    queue,
    queue_one,
    settings_for,
)
from pydicom.uid import SegmentationStorage
from pynetdicom import evt
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.events import Event

from fake_pacs import COMPREHENSIVE_3D_SR, fake_pacs, make_run
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.courier import Courier
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import box_of, put_off, waiting
from m3node.delivery.rounds import Round
from m3node.delivery.state import DeliveryState
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import Sendable, Sent, StoreAssociation, sendable
from m3node.delivery.transport import Transport
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Destination
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def test_nobody_listening_counts_an_attempt_of_one_object_and_the_others_wait_for_it(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        dead = pacs.destination()
    queue(layout, dead)
    with courier_for(layout, dead, delivery=PATIENT) as courier:
        result = go(layout, dead, PATIENT, courier)
        assert result == Round(put_off=1, unreachable=result.unreachable)
        assert result.unreachable == f"no connection to PACS@127.0.0.1:{dead.port}: Connection refused"
        assert [entry.kind for entry in result.wake] == [SEG]
        # The others do not each try it.
        assert go(layout, dead, PATIENT, courier) == Round(unreachable=result.unreachable)
    assert {kind: entry.attempts for kind, entry in left(layout).items()} == {
        SEG: 1,
        REPORT: 0,
        "volumes.sr": 0,
        "presentation.pr": 0,
    }


def test_a_host_that_does_not_resolve_is_unreachable_and_no_crash(layout: DataLayout) -> None:
    nowhere = Destination(name="pacs", ae_title="PACS", host="no-such-host.invalid", port=104)
    queue(layout, nowhere)
    assert go(layout, nowhere).unreachable.startswith("no connection to PACS@no-such-host.invalid:104: ")


def test_a_rejected_association_says_the_peers_reason_and_everything_waits(layout: DataLayout) -> None:
    with fake_pacs(require_calling=["SOMEBODY"]) as pacs:
        queue(layout, pacs.destination())
        assert "Calling AE title not recognised" in go(layout, pacs.destination()).unreachable
    assert len(left(layout)) == 4


def test_a_rejection_is_heard_however_late_pynetdicom_looks_for_it(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LateEvent(threading.Event):
        """Wakes who waits for the connection when the peer has answered, and the connection is over again."""

        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)
            wait_for(lambda: not (transports and transports[-1]._is_connected))
            return True

    transports: list[Transport] = []
    make = Transport.__init__

    def late(self: Transport, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        self._ready = LateEvent()
        transports.append(self)

    monkeypatch.setattr(Transport, "__init__", late)
    with fake_pacs(require_calling=["SOMEBODY"]) as pacs:
        queue(layout, pacs.destination())
        assert "rejects the association: Calling AE title not recognised" in go(layout, pacs.destination()).unreachable
    assert transports


def test_a_listener_that_is_no_dicom_peer_is_unreachable(layout: DataLayout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=server.getsockname()[1])
        queue(layout, silent)
        result = go(layout, silent, QUICK.model_copy(update={"connect_seconds": 0.5}))
    assert result.unreachable.endswith("does not answer the association request as a DICOM peer")


def test_an_empty_answer_is_not_taken_for_stored_and_the_same_instance_goes_again(layout: DataLayout) -> None:
    with fake_pacs() as pacs, courier_for(layout, pacs.destination()) as courier:
        queue_one(layout, pacs.destination())
        with _answers_without_status():
            assert go(layout, pacs.destination(), courier=courier) == Round(put_off=1)
        assert left(layout)[REPORT].last_error == "no answer, or one without a status"
        assert left(layout)[REPORT].state is DeliveryState.UNKNOWN
        wait_for(lambda: go(layout, pacs.destination(), courier=courier).stored == 1)
        assert pacs.associations == 2  # what is answered late on the first is not taken for the next object's answer
        assert pacs.offered == [pacs.offered[0]] * 2
        assert pacs.associations == 2


@contextmanager
def _answers_without_status() -> Iterator[None]:
    """Let each C-STORE response leave without (0000,0900), as pynetdicom's requestor sees an invalid one."""
    plain = C_STORE_RSP.primitive_to_message

    def strip(self: C_STORE_RSP, primitive: object) -> None:
        plain(self, primitive)
        del self.command_set.Status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(C_STORE_RSP, "primitive_to_message", strip)
        yield


def test_an_answer_is_never_lost_to_pynetdicoms_own_polling_of_the_queue(layout: DataLayout) -> None:
    items = [sendable(item.path) for item in make_run(layout, RUN)]
    ended = threading.Event()
    with fake_pacs() as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        with StoreAssociation(peer, "M3NODE", [item.syntax for item in items], Timeouts()) as association:

            def poll() -> None:
                while not ended.is_set():
                    association._association.dimse.get_msg(block=False)

            thread = threading.Thread(target=poll)
            thread.start()
            try:
                verdicts = [association.send(item).verdict for item in items * 5]
            finally:
                ended.set()
                thread.join()
    assert set(verdicts) == {Verdict.STORED}


def test_a_peer_that_never_answers_is_left_after_the_response_timeout(layout: DataLayout) -> None:
    release = threading.Event()
    with fake_pacs(lambda event: release.wait(60) and 0x0000) as pacs:
        queue_one(layout, pacs.destination())
        assert go(layout, pacs.destination(), IMPATIENT) == Round(put_off=1)
        assert left(layout)[REPORT].last_error == "no answer, or one without a status"
        release.set()
        wait_for(lambda: go(layout, pacs.destination()).stored == 1)


def test_a_peer_that_stops_reading_is_left_too(layout: DataLayout) -> None:
    release = threading.Event()
    received = []

    def stall(event: Event) -> None:
        received.append(len(event.data))
        if sum(received) > 100_000:
            release.wait(60)

    with fake_pacs(handlers=[(evt.EVT_DATA_RECV, stall)]) as pacs:
        queue_one(layout, pacs.destination(), ObjectKind.SEGMENTATION, size=30_000_000)
        assert go(layout, pacs.destination(), IMPATIENT) == Round(put_off=1)
        assert left(layout)[SEG].last_error == "no answer, or one without a status"
        release.set()
        received.clear()


def test_a_peer_that_aborts_gets_the_object_again_and_the_others_on_a_new_association(layout: DataLayout) -> None:
    def abort(event: Event) -> int:
        if event.request.AffectedSOPClassUID == SegmentationStorage:
            event.assoc.abort()
        return 0x0000

    with fake_pacs(abort) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=3, put_off=1)
        assert pacs.associations == 2
        assert set(left(layout)) == {SEG}


def test_a_connection_that_drops_gets_the_object_again(layout: DataLayout) -> None:
    def drop(event: Event) -> int:
        if len(pacs.offered) == 1:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000

    with fake_pacs() as pacs:
        pacs.answer = drop
        queue_one(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(put_off=1)
        wait_for(lambda: go(layout, pacs.destination()).stored == 1)


def test_a_destination_that_takes_objects_and_answers_none_is_left_alone_after_three(layout: DataLayout) -> None:
    release = threading.Event()
    patient = PATIENT.model_copy(update={"response_seconds": 0.5})
    with fake_pacs(lambda event: release.wait(60) and 0x0000) as pacs:
        queue(layout, pacs.destination())
        with courier_for(layout, pacs.destination(), delivery=patient) as courier:
            result = go(layout, pacs.destination(), patient, courier)
            assert result == Round(put_off=3, unreachable="no answer, or one without a status")
            assert go(layout, pacs.destination(), patient, courier).put_off == 0
            assert len(pacs.offered) == 3
        release.set()


def test_objects_that_a_peer_chokes_on_keep_none_of_the_others_from_it(layout: DataLayout) -> None:
    bad: set[str] = set()

    def choke(event: Event) -> int:
        if str(event.request.AffectedSOPInstanceUID) in bad:
            event.assoc.abort()
        return 0x0000

    with fake_pacs(choke) as pacs, courier_for(layout, pacs.destination()) as courier:
        for run in ("1.2.3.g1", "1.2.4.g1"):
            queue(layout, pacs.destination(), run=run)
        bad |= {entry.sop_instance_uid for entry in waiting(box_of(layout, "pacs"))[:4]}
        good = {entry.sop_instance_uid for entry in waiting(box_of(layout, "pacs"))} - bad
        wait_for(lambda: go(layout, pacs.destination(), courier=courier) and good <= set(pacs.kept))
        assert {entry.sop_instance_uid for entry in waiting(box_of(layout, "pacs"))} == bad


def test_an_answer_in_between_says_that_the_peer_is_there(layout: DataLayout) -> None:
    def abort_reports(event: Event) -> int:
        if event.request.AffectedSOPClassUID == COMPREHENSIVE_3D_SR:
            event.assoc.abort()
        return 0x0000

    with fake_pacs(abort_reports) as pacs:
        for run in ("1.2.3.g1", "1.2.4.g1"):
            queue(layout, pacs.destination(), run=run)
        assert go(layout, pacs.destination()) == Round(stored=4, put_off=4)


def test_an_entry_that_has_failed_for_too_long_is_a_dead_letter_and_says_what_was_last(layout: DataLayout) -> None:
    short = QUICK.model_copy(update={"give_up_hours": 0.3 / 3600})
    with fake_pacs(0xA700) as pacs, courier_for(layout, pacs.destination(), delivery=short) as courier:
        queue_one(layout, pacs.destination())
        wait_for(lambda: go(layout, pacs.destination(), short, courier).aside == 1)
        assert len(pacs.offered) > 1
    (dead,) = entries_aside(layout)
    assert dead.state is DeliveryState.DEAD
    assert dead.attempts == len(pacs.offered) - 1
    assert dead.last_error.endswith("at last: 0xA700 out of resources")


def test_zero_hours_never_give_up(layout: DataLayout) -> None:
    never = QUICK.model_copy(update={"give_up_hours": 0.0})
    with fake_pacs(0xA700) as pacs, courier_for(layout, pacs.destination(), delivery=never) as courier:
        queue_one(layout, pacs.destination())
        box = box_of(layout, "pacs")
        (entry,) = waiting(box)
        put_off(box, entry, "0xA700 out of resources", 0.0, since=1.0)  # in 1970
        assert go(layout, pacs.destination(), never, courier) == Round(put_off=1)


def test_what_waited_as_long_for_a_dead_destination_is_given_up_with_its_probe_and_the_rest_goes_on_waiting(
    layout: DataLayout,
) -> None:
    with fake_pacs() as pacs:
        dead = pacs.destination()
    short = QUICK.model_copy(update={"give_up_hours": 1.0})
    old, young = "1.2.3.g1", "1.2.4.g1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m3node.delivery.outbox.time.time", lambda: 1_000_000.0)
        queue(layout, dead, run=old)
        box = box_of(layout, "pacs")
        put_off(box, waiting(box)[0], "no connection", 0.0)
    queue(layout, dead, run=young)
    with courier_for(layout, dead, delivery=short) as courier:
        result = go(layout, dead, short, courier)
    assert (result.aside, result.put_off) == (4, 1)
    assert {entry.run for entry in entries_aside(layout)} == {old}
    assert {entry.state for entry in entries_aside(layout)} == {DeliveryState.DEAD}
    # One of the others is the next to try.
    assert [(entry.run, entry.kind, entry.attempts) for entry in result.wake] == [(young, SEG, 1)]
    assert {entry.run for entry in left(layout).values()} == {young}


def test_a_probe_that_is_no_good_itself_has_nothing_given_up_that_the_destination_did_not_fail_for_so_long(
    layout: DataLayout,
) -> None:
    with fake_pacs() as pacs:
        dead = pacs.destination()
    short = QUICK.model_copy(update={"give_up_hours": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m3node.delivery.outbox.time.time", lambda: 1_000_000.0)
        queue(layout, dead)  # and nobody delivered until now
    with courier_for(layout, dead, delivery=short) as courier:
        assert go(layout, dead, short, courier).put_off == 1
        (layout.results / RUN / f"{SEG}.dcm").unlink()
        wait_for(lambda: go(layout, dead, short, courier).aside == 1)
    assert [(entry.kind, entry.state) for entry in entries_aside(layout)] == [(SEG, DeliveryState.DEAD)]
    assert set(left(layout)) == {REPORT, "volumes.sr", "presentation.pr"}


def test_an_association_that_is_lost_just_before_the_next_object_costs_it_nothing(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = [sendable(item.path) for item in make_run(layout, RUN)]
    send = StoreAssociation.send
    lost = []

    def send_behind_the_loss(self: StoreAssociation, item: Sendable) -> Sent:
        if not lost:
            lost.append(item)
            self._association.abort()
        return send(self, item)

    with fake_pacs() as pacs, courier_for(layout, pacs.destination()) as courier:
        assert courier.send(pacs.destination(), first).verdict is Verdict.STORED
        monkeypatch.setattr(StoreAssociation, "send", send_behind_the_loss)
        assert courier.send(pacs.destination(), second).verdict is Verdict.STORED
        assert (len(lost), len(pacs.offered), pacs.associations) == (1, 2, 2)


def test_an_object_that_was_offered_and_not_answered_is_not_offered_again_at_once(layout: DataLayout) -> None:
    items = [sendable(item.path) for item in make_run(layout, RUN)]

    def abort_the_second(event: Event) -> int:
        if len(pacs.offered) == 2:
            event.assoc.abort()
        return 0x0000

    with fake_pacs() as pacs, courier_for(layout, pacs.destination()) as courier:
        pacs.answer = abort_the_second
        told = [courier.send(pacs.destination(), item) for item in items[:2]]
        assert [(sent.verdict, sent.unknown) for sent in told] == [(Verdict.STORED, False), (Verdict.AGAIN, True)]
        assert pacs.offered == [item.sop_instance_uid for item in items[:2]]


def test_a_peer_that_closes_a_lingering_association_costs_the_next_object_nothing(layout: DataLayout) -> None:
    items = [sendable(item.path) for item in make_run(layout, RUN)]
    open_now = []
    with (
        fake_pacs(handlers=[(evt.EVT_ESTABLISHED, lambda event: open_now.append(event.assoc))]) as pacs,
        courier_for(layout, pacs.destination()) as courier,
    ):
        assert courier.send(pacs.destination(), items[0]).verdict is Verdict.STORED
        open_now[0].abort()
        wait_for(lambda: not open_now[0].is_alive())
        assert courier.send(pacs.destination(), items[1]).verdict is Verdict.STORED
        assert len(open_now) == 2


def test_a_lingering_association_is_released_when_nobody_uses_it_and_not_before(layout: DataLayout) -> None:
    item = sendable(make_run(layout, RUN, [ObjectKind.REPORT])[0].path)
    released = []
    with fake_pacs(handlers=[(evt.EVT_RELEASED, released.append)]) as pacs:
        courier = Courier(settings_for(layout, pacs.destination()), linger=600.0)
        for _ in range(3):
            courier.send(pacs.destination(), item)
            courier.close_idle()
        assert pacs.associations == 1
        courier._linger = 0.0
        wait_for(lambda: courier.close_idle() or released)
        courier.send(pacs.destination(), item)
        assert pacs.associations == 2
        courier.close()


def entries_aside(layout: DataLayout) -> list[Entry]:
    return [from_json(path.read_bytes()) for path in box_of(layout, "pacs").aside.glob(ENTRIES)]
