"""What is sent to a destination: the bytes that were built, in their order, and nothing that was changed since."""

from __future__ import annotations

import errno
import logging
import socket
import time
from pathlib import Path
from typing import IO, Any

import pydicom
import pytest
from delivering import REPORT, RUN, SEG, aside, courier_for, for_class, go, left, queue, sent
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from pynetdicom import _config, evt
from pynetdicom.events import Event

from fake_pacs import COMPREHENSIVE_3D_SR, RESULT_CLASSES, fake_pacs, make_run
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.queueing import enqueue
from m3node.delivery.recall import cancel
from m3node.delivery.rounds import Round
from m3node.delivery.store_scu import StoreAssociation, sendable
from m3node.identity import IMPLEMENTATION_CLASS_UID
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from part10_file import split_file
from waiting import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def uid_of(layout: DataLayout, kind: str) -> str:
    """SOP Instance UID of an object of the run."""
    return str(pydicom.dcmread(layout.results / RUN / f"{kind}.dcm").SOPInstanceUID)


def test_a_run_arrives_whole_in_order_over_one_association(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        result = go(layout, pacs.destination())
    assert result == Round(stored=4)
    assert pacs.offered == [uid_of(layout, kind) for kind in (SEG, REPORT, "volumes.sr", "presentation.pr")]
    assert pacs.associations == 1
    assert sent(layout) == {SEG, REPORT, "volumes.sr", "presentation.pr"}
    assert left(layout) == {}


def test_the_data_set_arrives_byte_for_byte_as_its_file_holds_it(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is pynetdicom's and of the whole process, so another test may have turned it on.
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", False)
    with fake_pacs() as pacs:
        queue(layout, pacs.destination(), size=300_000)
        go(layout, pacs.destination())
    files = [split_file(path) for path in (layout.results / RUN).iterdir()]
    assert pacs.kept == {str(meta.MediaStorageSOPInstanceUID): data for meta, data in files}


def test_the_association_has_nagle_off_and_names_us(layout: DataLayout) -> None:
    callers: list[tuple[str, str]] = []

    def note(event: Event) -> None:
        caller = event.assoc.requestor
        callers.append((caller.ae_title, caller.implementation_class_uid))

    item = sendable(make_run(layout, RUN, [ObjectKind.REPORT])[0].path)
    with fake_pacs(handlers=[(evt.EVT_ACCEPTED, note)]) as pacs:
        peer = Peer("PACS", "127.0.0.1", pacs.port)
        with StoreAssociation(peer, "M3NODE", [item.syntax], Timeouts()) as association:
            transport = association._association.dul.socket.socket
            assert transport.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert callers == [("M3NODE", IMPLEMENTATION_CLASS_UID)]


def test_an_object_whose_context_is_rejected_is_set_aside_and_the_others_go_on(layout: DataLayout) -> None:
    classes = [uid for uid in RESULT_CLASSES if uid != COMPREHENSIVE_3D_SR]
    with fake_pacs(classes=classes) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(stored=2, aside=2)
    refusal = "the peer does not accept Comprehensive 3D SR Storage in Explicit VR Little Endian"
    assert aside(layout) == {REPORT: refusal, "volumes.sr": refusal}


def test_a_peer_that_accepts_no_context_at_all_has_every_object_set_aside(layout: DataLayout) -> None:
    with fake_pacs(classes=()) as pacs:
        queue(layout, pacs.destination())
        assert go(layout, pacs.destination()) == Round(aside=4)


def test_a_destination_with_enhanced_sr_receives_enhanced_reports(layout: DataLayout) -> None:
    classes = [uid for uid in RESULT_CLASSES if uid != COMPREHENSIVE_3D_SR]
    with fake_pacs(classes=classes) as pacs:
        destination = pacs.destination(sr="enhanced")
        enqueue(layout, RUN, make_run(layout, RUN, list(ObjectKind)), [destination])
        assert go(layout, destination) == Round(stored=6)
    kinds = (SEG, "report.enhanced.sr", "volumes.enhanced.sr", "presentation.pr", "attention.sc", "attention.pm")
    assert pacs.offered == [uid_of(layout, kind) for kind in kinds]
    assert pydicom.dcmread(layout.results / RUN / "report.enhanced.sr.dcm").SOPClassUID == EnhancedSRStorage


def test_bytes_that_are_not_what_was_built_never_leave(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        with (layout.results / RUN / f"{SEG}.dcm").open("ab") as stream:
            stream.write(b"\0\0")
        assert go(layout, pacs.destination()) == Round(stored=3, aside=1)
        assert len(pacs.offered) == 3
    assert aside(layout)[SEG] == "its file is not what was built: the SHA-256 differs"


def test_an_object_whose_file_is_gone_is_set_aside(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        (layout.results / RUN / f"{SEG}.dcm").unlink()
        assert go(layout, pacs.destination()) == Round(stored=3, aside=1)
    assert aside(layout)[SEG] == "its file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "where",
    ["pathlib.Path.open", "pydicom.filereader.open", "pynetdicom.dimse_messages.open"],
    ids=["before its digest", "before its association", "behind its command"],
)
def test_an_object_whose_file_cannot_be_read_for_a_moment_is_tried_again(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(path: Path | str, mode: str = "r", **how: Any) -> IO[Any]:
        if Path(path).suffix == ".dcm":
            raise OSError(errno.EIO, "Input/output error")
        return open(path, mode, **how)

    with fake_pacs() as pacs, courier_for(layout, pacs.destination()) as courier:
        queue(layout, pacs.destination())
        with monkeypatch.context() as disk:
            disk.setattr(where, refuse, raising=False)
            assert go(layout, pacs.destination(), courier=courier) == Round(put_off=4)
        assert aside(layout) == {}
        wait_for(lambda: all(entry.not_before < time.time() for entry in left(layout).values()))
        # Nor does half a message that went out before stand in front of the next one.
        assert go(layout, pacs.destination(), courier=courier) == Round(stored=4)
        assert len(pacs.kept) == 4


def test_a_cancelled_run_is_not_sent_any_more(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        queue(layout, pacs.destination(), run="1.2.3.g2")
        cancel(layout, RUN, "superseded by 1.2.3.g2")
        assert go(layout, pacs.destination()) == Round(stored=4)
        newer = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (layout.results / "1.2.3.g2").iterdir()}
        assert set(pacs.kept) == newer


def test_no_log_line_and_no_outbox_file_names_the_patient(layout: DataLayout, caplog: pytest.LogCaptureFixture) -> None:
    with fake_pacs(for_class(str(SegmentationStorage), 0xC000)) as pacs, caplog.at_level(logging.DEBUG, "m3node"):
        queue(layout, pacs.destination())
        go(layout, pacs.destination())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("m3node")]
    assert len(ours) == 4
    everything = " ".join(ours) + " ".join(p.name + p.read_text() for p in layout.outbox.rglob("*.json"))
    assert "Doe" not in everything
    assert "Jane" not in everything
