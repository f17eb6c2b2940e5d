"""No peer, no association, no answer: nothing is taken for stored that was not, and nothing is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from delivering import IMPATIENT, REPORT, RUN, SEG, go, left, queue, queue_one
from pydicom.uid import SegmentationStorage
from pynetdicom import evt
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.events import Event

from fake_pacs import fake_pacs, make_run
from m3node.delivery.address import Peer
from m3node.delivery.deliverer import Round
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import StoreAssociation, Timeouts, sendable
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Destination
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def test_nobody_listening_counts_no_attempt_of_any_object(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        dead = pacs.destination()
    queue(layout, dead)
    result = go(layout, dead)
    assert result.unreachable == f"no connection to PACS@127.0.0.1:{dead.port}: Connection refused"
    assert {entry.attempts for entry in left(layout).values()} == {0}
    assert len(left(layout)) == 4


def test_a_host_that_does_not_resolve_is_unreachable_and_no_crash(layout: DataLayout) -> None:
    nowhere = Destination(name="pacs", ae_title="PACS", host="no-such-host.invalid", port=104)
    queue(layout, nowhere)
    assert go(layout, nowhere).unreachable.startswith("no connection to PACS@no-such-host.invalid:104: ")


def test_a_rejected_association_says_the_peers_reason_and_everything_waits(layout: DataLayout) -> None:
    with fake_pacs(require_calling=["SOMEBODY"]) as pacs:
        queue(layout, pacs.destination())
        assert "Calling AE title not recognised" in go(layout, pacs.destination()).unreachable
    assert len(left(layout)) == 4


def test_a_listener_that_is_no_dicom_peer_is_unreachable(layout: DataLayout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=server.getsockname()[1])
        queue(layout, silent)
        result = go(layout, silent, IMPATIENT)
    assert result.unreachable.endswith("does not answer the association request as a DICOM peer")


def test_an_empty_answer_is_not_taken_for_stored_and_the_same_instance_goes_again(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue_one(layout, pacs.destination())
        with _answers_without_status():
            assert go(layout, pacs.destination()) == Round(put_off=1)
        assert left(layout)[REPORT].last_error == "no answer, or one without a status"
        wait_for(lambda: go(layout, pacs.destination()).stored == 1)
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
