from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from pynetdicom import _config, evt
from pynetdicom.dul import DULServiceProvider
from pynetdicom.events import Event

from fake_pacs import COMPREHENSIVE_3D_SR, RESULT_CLASSES, fake_pacs, make_run
from m3node.delivery.address import Peer
from m3node.delivery.deliverer import Round, deliver_once, run_deliverer
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import Box, box_of, cancel, enqueue, file_sent, waiting
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import StoreAssociation, Timeouts, sendable
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import DeliverySettings, Destination, ListenerSettings, Settings

RUN = "1.2.3.g1"
QUICK = DeliverySettings(connect_seconds=2.0, response_seconds=0.5, retry_first_seconds=0.05, retry_max_seconds=0.2)
FIRST = "segmentation.seg"


@pytest.fixture(autouse=True)
def _switch_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", False)


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def queue(layout: DataLayout, *destinations: Destination, run: str = RUN, size: int = 0) -> None:
    enqueue(layout, run, make_run(layout, run, size=size), destinations)


def go(layout: DataLayout, destination: Destination) -> Round:
    return deliver_once(layout, destination, "M3NODE", QUICK)


def aside(layout: DataLayout, name: str = "pacs") -> dict[str, str]:
    entries = [from_json(path.read_bytes()) for path in box_of(layout, name).aside.iterdir()]
    return {entry.kind: entry.last_error for entry in entries}


def left(layout: DataLayout, name: str = "pacs") -> dict[str, Entry]:
    return {entry.kind: entry for entry in waiting(box_of(layout, name))}


def sent(layout: DataLayout, name: str = "pacs") -> set[str]:
    return {from_json(path.read_bytes()).kind for path in box_of(layout, name).sent.iterdir()}


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextmanager
def deliverer(layout: DataLayout, *destinations: Destination, delivery: DeliverySettings = QUICK) -> Iterator[None]:
    settings = Settings(data_dir=layout.root, listener=ListenerSettings(), destinations=destinations, delivery=delivery)
    stop = threading.Event()
    thread = threading.Thread(target=run_deliverer, args=(settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def one_kind(kind_of_class: str, status: int) -> Callable[[Event], int]:
    """Answer one SOP class with a status, the others with success."""
    return lambda event: status if event.request.AffectedSOPClassUID == kind_of_class else 0x0000


def test_a_run_arrives_whole_in_order_over_one_association(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        result = go(layout, pacs.destination())
    first = [pydicom.dcmread(layout.results / RUN / f"{kind}.dcm").SOPInstanceUID for kind in (FIRST, "report.sr")]
    assert result == Round(stored=4)
    assert pacs.offered[:2] == first
    assert pacs.associations == 1
    assert sent(layout) == {FIRST, "report.sr", "volumes.sr", "presentation.pr"}
    assert left(layout) == {}


def test_the_data_set_arrives_byte_for_byte_as_its_file_holds_it(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination(), size=300_000)
        go(layout, pacs.destination())
    for path in (layout.results / RUN).iterdir():
        content = path.read_bytes()
        assert pacs.kept[str(pydicom.dcmread(path).SOPInstanceUID)] == content[_offset(content) :]


def _offset(content: bytes) -> int:
    stream = DicomBytesIO(content)
    stream.seek(132)
    group_length = pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.elem != 0)
    return 132 + 12 + int(group_length.FileMetaInformationGroupLength)


def test_the_association_has_nagle_off_and_names_us(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = socket.socket.setsockopt

    def spy(self: socket.socket, *arguments: int) -> None:
        if arguments[:2] == (socket.IPPROTO_TCP, socket.TCP_NODELAY):
            seen.append(arguments[2])
        plain(self, *arguments)

    callers: list[str] = []
    named = (evt.EVT_ACCEPTED, lambda event: callers.append(event.assoc.requestor.ae_title))
    with fake_pacs(handlers=[named]) as pacs:
        queue(layout, pacs.destination())
        monkeypatch.setattr(socket.socket, "setsockopt", spy)
        go(layout, pacs.destination())
    assert 1 in seen
    assert callers == ["M3NODE"]


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0xBFFF])
def test_success_and_warnings_mean_stored(layout: DataLayout, status: int) -> None:
    with fake_pacs(status) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=4)
    assert left(layout) == {}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0122, 0x0117, 0x0124, 0x4321])
def test_an_object_that_is_refused_is_set_aside_and_the_others_go_on(layout: DataLayout, status: int) -> None:
    with fake_pacs(one_kind(str(SegmentationStorage), status)) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=3, aside=1)
        assert pacs.associations == 1
        assert go(layout, pacs.destination()) == Round()
    assert set(aside(layout)) == {FIRST}
    assert aside(layout)[FIRST].startswith(f"0x{status:04X} ")


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0x0110])
def test_an_object_that_the_peer_has_no_room_for_waits_and_the_others_go_on(layout: DataLayout, status: int) -> None:
    with fake_pacs(one_kind(str(SegmentationStorage), status)) as pacs:
        queue(layout, pacs.destination())
        before = time.time()
        assert go(layout, pacs.destination()) == Round(stored=3, put_off=1)
        entry = left(layout)[FIRST]
        assert entry.attempts == 1
        assert entry.not_before >= before + QUICK.retry_first_seconds
        pacs.answer = 0x0000
        until(lambda: go(layout, pacs.destination()).stored == 1)
        assert pacs.associations == 2
    assert left(layout) == {}


def test_each_failed_attempt_backs_off_by_its_own_count(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []

    def count(before: int, delivery: DeliverySettings) -> float:
        failures.append(before)
        return 0.0

    monkeypatch.setattr("m3node.delivery.deliverer.back_off", count)
    with fake_pacs(0xA700) as pacs:
        enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [pacs.destination()])
        for _ in range(4):
            go(layout, pacs.destination())
    assert failures == [0, 1, 2, 3]


def test_an_object_that_is_put_off_is_not_offered_before_its_time(layout: DataLayout) -> None:
    slow = QUICK.model_copy(update={"retry_first_seconds": 600.0, "retry_max_seconds": 600.0})
    with fake_pacs(0xA700) as pacs:
        enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [pacs.destination()])
        deliver_once(layout, pacs.destination(), "M3NODE", slow)
        assert deliver_once(layout, pacs.destination(), "M3NODE", slow) == Round()
        assert len(pacs.offered) == 1


def test_an_empty_answer_is_not_taken_for_stored_and_the_same_instance_goes_again(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [pacs.destination()])
        with _answers_without_status():
            assert go(layout, pacs.destination()) == Round(put_off=1)
        assert left(layout)["report.sr"].last_error == "no answer, or one without a status"
        until(lambda: go(layout, pacs.destination()).stored == 1)
        assert pacs.offered == [pacs.offered[0]] * 2
        assert pacs.associations == 2


@contextmanager
def _answers_without_status() -> Iterator[None]:
    """Let each C-STORE response leave without (0000,0900), as pynetdicom's requestor sees an invalid one."""
    from pynetdicom.dimse_messages import C_STORE_RSP

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
        with StoreAssociation(peer, "M3NODE", [item.syntax for item in items], Timeouts(2.0, 2.0)) as association:

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
    with fake_pacs(lambda event: release.wait(20) and 0x0000) as pacs:
        enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [pacs.destination()])
        assert go(layout, pacs.destination()) == Round(put_off=1)
        assert left(layout)["report.sr"].last_error == "no answer, or one without a status"
        release.set()
        until(lambda: go(layout, pacs.destination()).stored == 1)


def test_a_peer_that_stops_reading_is_left_too(layout: DataLayout) -> None:
    release = threading.Event()
    received = []

    def stall(event: Event) -> None:
        received.append(len(event.data))
        if sum(received) > 100_000:
            release.wait(20)

    with fake_pacs(handlers=[(evt.EVT_DATA_RECV, stall)]) as pacs:
        enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.SEGMENTATION], size=30_000_000), [pacs.destination()])
        assert go(layout, pacs.destination()) == Round(put_off=1)
        assert left(layout)[FIRST].last_error == "no answer, or one without a status"
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
        assert set(left(layout)) == {FIRST}


def test_a_connection_that_drops_gets_the_object_again(layout: DataLayout) -> None:
    def drop(event: Event) -> int:
        if len(pacs.offered) == 1:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000

    with fake_pacs() as pacs:
        pacs.answer = drop
        enqueue(layout, RUN, make_run(layout, RUN, [ObjectKind.REPORT]), [pacs.destination()])
        assert go(layout, pacs.destination()) == Round(put_off=1)
        until(lambda: go(layout, pacs.destination()).stored == 1)


def test_an_object_whose_context_is_rejected_is_set_aside_and_the_others_go_on(layout: DataLayout) -> None:
    classes = [uid for uid in RESULT_CLASSES if uid != COMPREHENSIVE_3D_SR]
    with fake_pacs(classes=classes) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=2, aside=2)
    assert set(aside(layout)) == {"report.sr", "volumes.sr"}
    assert (
        aside(layout)["report.sr"]
        == "the peer does not accept Comprehensive 3D SR Storage in Explicit VR Little Endian"
    )


def test_a_peer_that_accepts_no_context_at_all_has_every_object_set_aside(layout: DataLayout) -> None:
    with fake_pacs(classes=()) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(aside=4)


def test_a_destination_with_enhanced_sr_receives_enhanced_reports(layout: DataLayout) -> None:
    classes = [uid for uid in RESULT_CLASSES if uid != COMPREHENSIVE_3D_SR]
    with fake_pacs(classes=classes) as pacs:
        destination = pacs.destination(sr="enhanced")
        enqueue(layout, RUN, make_run(layout, RUN, list(ObjectKind)), [destination])
        assert go(layout, destination) == Round(stored=4)
    reports = pydicom.dcmread(layout.results / RUN / "report.enhanced.sr.dcm")
    assert reports.SOPClassUID == EnhancedSRStorage
    assert str(reports.SOPInstanceUID) in pacs.kept


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
        delivery = QUICK.model_copy(update={"connect_seconds": 0.5})
        result = deliver_once(layout, silent, "M3NODE", delivery)
    assert result.unreachable.endswith("does not answer the association request as a DICOM peer")


def test_bytes_that_are_not_what_was_built_never_leave(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        with (layout.results / RUN / f"{FIRST}.dcm").open("ab") as stream:
            stream.write(b"\0\0")
        assert go(layout, pacs.destination()) == Round(stored=3, aside=1)
        assert len(pacs.offered) == 3
    assert aside(layout)[FIRST] == "its file is not what was built: the SHA-256 differs"


def test_an_object_whose_file_is_gone_is_set_aside(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        (layout.results / RUN / f"{FIRST}.dcm").unlink()
        assert go(layout, pacs.destination()) == Round(stored=3, aside=1)
    assert aside(layout)[FIRST] == "its file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "where",
    ["m3node.delivery.deliverer.Path.open", "pydicom.filereader.open", "pynetdicom.dimse_messages.open"],
    ids=["before its digest", "before its association", "behind its command"],
)
def test_an_object_whose_file_cannot_be_read_for_a_moment_is_tried_again(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(path: Path | str, mode: str = "r", **how: Any) -> IO[Any]:
        if Path(path).suffix == ".dcm":
            raise OSError(errno.EIO, "Input/output error")
        return open(path, mode, **how)

    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        with monkeypatch.context() as disk:
            disk.setattr(where, refuse, raising=False)
            assert go(layout, pacs.destination()) == Round(put_off=4)
        assert aside(layout) == {}
        until(lambda: go(layout, pacs.destination()).put_off == 0 and not left(layout))
        assert len(pacs.kept) == 4


def test_a_clock_that_is_set_back_holds_no_result_up(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_pacs(0xA700) as pacs:
        queue(layout, pacs.destination())
        with monkeypatch.context() as wrong:
            wrong.setattr("m3node.delivery.deliverer.time.time", lambda: 4_000_000_000.0)
            assert go(layout, pacs.destination()) == Round(put_off=4)
        pacs.answer = 0x0000
        with deliverer(layout, pacs.destination()):
            until(lambda: not left(layout))
        assert len(pacs.kept) == 4


def test_results_queued_before_a_restart_go_after_it(layout: DataLayout) -> None:
    with fake_pacs(0xA700) as pacs:
        with deliverer(layout, pacs.destination()):
            queue(layout, pacs.destination())
            until(lambda: len(pacs.offered) >= 4)
        assert len(left(layout)) == 4
        pacs.answer = 0x0000
        with deliverer(layout, pacs.destination()):
            until(lambda: not left(layout))
    assert len(pacs.kept) == 4


def test_results_wait_for_an_archive_that_is_down_and_go_when_it_comes_up(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        destination = pacs.destination()
    queue(layout, destination)
    with deliverer(layout, destination):
        box = Box(layout.outbox / "pacs")
        until(box.sent.is_dir)
        assert len(left(layout)) == 4
        with fake_pacs(port=destination.port) as revived:
            until(lambda: not left(layout))
            assert len(revived.kept) == 4


def test_a_dead_and_a_hanging_destination_delay_no_other(layout: DataLayout) -> None:
    release = threading.Event()
    with fake_pacs() as gone:
        dead = gone.destination("dead")
    with fake_pacs(lambda event: release.wait(20) and 0x0000) as hanging, fake_pacs() as good:
        three = (dead, hanging.destination("hanging"), good.destination("good"))
        with deliverer(layout, *three):
            queue(layout, *three)
            until(lambda: len(sent(layout, "good")) == 4 if box_of(layout, "good").sent.is_dir() else False)
            assert sent(layout, "hanging") == set()
            assert len(left(layout, "dead")) == 4
            release.set()


def test_a_disk_that_is_full_for_a_moment_stops_delivery_for_a_moment(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail = [True]

    def file_or_fail(box: Box, entry: Entry) -> None:
        if fail:
            fail.clear()
            raise OSError(28, "No space left on device")
        file_sent(box, entry)

    monkeypatch.setattr("m3node.delivery.deliverer.file_sent", file_or_fail)
    with fake_pacs() as pacs, deliverer(layout, pacs.destination()):
        queue(layout, pacs.destination())
        until(lambda: box_of(layout, "pacs").sent.is_dir() and len(sent(layout)) == 4)
    assert "delivery stumbled over OSError" in caplog.text


def ours_alive() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if isinstance(t, DULServiceProvider) and t.assoc.is_requestor]


def test_a_stop_does_not_wait_for_a_peer_that_hangs(layout: DataLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.delivery.deliverer.STOP_SECONDS", 0.2)
    release = threading.Event()
    slow = QUICK.model_copy(update={"response_seconds": 600.0})
    with fake_pacs(lambda event: release.wait(60) and 0x0000) as pacs:
        queue(layout, pacs.destination())
        with deliverer(layout, pacs.destination(), delivery=slow):
            until(lambda: bool(pacs.offered))
        until(lambda: not ours_alive())
        assert len(left(layout)) == 4
        release.set()


def test_an_interrupt_in_the_middle_of_an_object_leaves_no_thread_behind(layout: DataLayout) -> None:
    release = threading.Event()
    main = threading.get_ident()

    def interrupt(event: Event) -> int:
        signal.pthread_kill(main, signal.SIGINT)  # wakes what blocks, as Ctrl-C does
        release.wait(60)
        return 0x0000

    item = sendable(make_run(layout, RUN, [ObjectKind.REPORT])[0].path)
    with fake_pacs(interrupt) as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        association = StoreAssociation(peer, "M3NODE", [item.syntax], Timeouts(2.0, 600.0))
        with pytest.raises(KeyboardInterrupt), association:
            association.send(item)
        until(lambda: not ours_alive())
        release.set()


def test_a_second_run_goes_while_the_deliverer_is_running(layout: DataLayout) -> None:
    with fake_pacs() as pacs, deliverer(layout, pacs.destination()):
        queue(layout, pacs.destination())
        until(lambda: len(pacs.kept) == 4)
        queue(layout, pacs.destination(), run="1.2.4.g1")
        until(lambda: len(pacs.kept) == 8)


def test_a_cancelled_run_is_not_sent_any_more(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        queue(layout, pacs.destination(), run="1.2.3.g2")
        cancel(layout, RUN, "superseded by 1.2.3.g2")
        assert go(layout, pacs.destination()) == Round(stored=4)
        newer = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (layout.results / "1.2.3.g2").iterdir()}
        assert set(pacs.kept) == newer


def test_results_for_a_destination_that_was_removed_are_named_at_the_start(
    layout: DataLayout, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_pacs() as pacs, caplog.at_level(logging.WARNING):
        queue(layout, pacs.destination("former"))
        with deliverer(layout):
            until(lambda: "4 objects wait for former, which is no destination any more" in caplog.text)


def test_no_log_line_and_no_outbox_file_names_the_patient(layout: DataLayout, caplog: pytest.LogCaptureFixture) -> None:
    with fake_pacs(one_kind(str(SegmentationStorage), 0xC000)) as pacs, caplog.at_level(logging.DEBUG, "m3node"):
        queue(layout, pacs.destination())
        go(layout, pacs.destination())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("m3node")]
    assert len(ours) == 4
    everything = " ".join(ours) + " ".join(p.name + p.read_text() for p in layout.outbox.rglob("*.json"))
    assert "Doe" not in everything
    assert "Jane" not in everything


def test_a_status_data_set_with_an_error_comment_is_read_by_its_status_alone(layout: DataLayout) -> None:
    def refuse(event: Event) -> Dataset:
        status = Dataset()
        status.Status = 0xC001
        status.ErrorComment = "Doe^Jane is unknown"
        return status

    with fake_pacs(refuse) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(aside=4)
    assert set(aside(layout).values()) == {"0xC001 cannot understand"}
