"""What is sent is on disk as it was sent, or refused with a status that says why."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from receiving import (
    CT,
    EXPLICIT,
    Node,
    associated,
    element,
    eventually,
    named,
    raw_store,
    rejection,
    running,
    settings_for,
    split_file,
    tiny,
)

from m3node.intake.receive import gathered
from m3node.intake.receive.association import ArrivalEvent, LeaseReader, read_leases
from m3node.intake.receive.contexts import COMPRESSED, SOP_CLASSES, UNCOMPRESSED
from m3node.intake.receive.identity import Identity
from m3node.intake.receive.receiver import Receiver
from m3node.layout import DataLayout
from part10_file import split_file


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("store"), maximum_pdu_size=16384) as node:
        yield node


@pytest.fixture
def association(node: Node) -> Iterator[Association]:
    with associated(node.port) as association:
        assert association.is_established
        yield association


def test_an_instance_is_on_disk_and_in_the_lease_when_success_is_heard(node: Node, association: Association) -> None:
    data = tiny(named(1), os.urandom(300_001))
    response = raw_store(association, data, sop_instance="2.25.3.1")
    assert response is not None
    assert response.Status == 0x0000
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (CT, "2.25.3.1")
    stored = node.layout.spool / "2.25.1/2.25.2/2.25.3.1.dcm"
    meta, kept = split_file(stored)
    assert kept == data
    assert meta.SourceApplicationEntityTitle == "TESTER"
    arrivals = [lease for lease in node.leases().leases.values() if lease.last_series == "2.25.2"]
    assert arrivals[-1].calling == "TESTER"


def test_repeats_and_revisions_are_acknowledged_and_told_apart(node: Node, association: Association) -> None:
    first, second = tiny(named(2), b"a" * 100), tiny(named(2), b"b" * 100)
    for data in (first, first, second, second, first):
        response = raw_store(association, data, sop_instance="2.25.3.2")
        assert response is not None
        assert response.Status == 0x0000
    reader_events = [
        event.status
        for lease in node.layout.associations.glob("*.jsonl")
        for event in _arrivals(lease)
        if Path(event.path).name.startswith("2.25.3.2.")
    ]
    assert reader_events == ["new", "duplicate", "revision", "duplicate", "duplicate"]
    files = [name for name in node.stored() if "/2.25.3.2." in name]
    assert sorted(split_file(node.layout.spool / name)[1] for name in files) == [first, second]


def _arrivals(path: Path) -> list[ArrivalEvent]:
    reader = LeaseReader(path.parent)
    return [event for event in reader.poll() if isinstance(event, ArrivalEvent) and event.association == path.stem]


SC = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("data", "command", "status"),
    [
        pytest.param(tiny(named(9)), (CT, "2.25.3.10"), 0xA900, id="another instance"),
        pytest.param(tiny(named(9, SC)), (CT, "2.25.3.9"), 0xA900, id="another class in the data set"),
        pytest.param(tiny(named(9, SC)), (SC, "2.25.3.9"), 0x0122, id="another class than the context's"),
        pytest.param(b"\x01\x02\x03", (CT, "2.25.3.9"), 0xC000, id="noise"),
        pytest.param(tiny(named(9))[:40], (CT, "2.25.3.9"), 0xC000, id="cut short"),
        pytest.param(tiny(Identity(CT, "../../../x", "2.25.1", "2.25.2")), (CT, "../../../x"), 0xC001, id="a path"),
        pytest.param(tiny(Identity(CT, "2.25.3.9", "..", "2.25.2")), (CT, "2.25.3.9"), 0xC001, id="a path for a study"),
        pytest.param(tiny(Identity(CT, "2.25.3.9", "2.25.1", "1.02")), (CT, "2.25.3.9"), 0xC001, id="a leading zero"),
        pytest.param(tiny(Identity(CT, "2.25.3.9", "", "2.25.2")), (CT, "2.25.3.9"), 0xC002, id="no study"),
        pytest.param(element(0x00080016, CT), (CT, "2.25.3.9"), 0xC002, id="no instance"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_status_and_the_association_goes_on(
    node: Node, association: Association, data: bytes, command: tuple[str, str], status: int
) -> None:
    before = node.stored()
    response = raw_store(association, data, sop_class=command[0], sop_instance=command[1])
    assert response is not None
    assert response.Status == status
    assert response.ErrorComment
    assert node.stored() == before
    following = raw_store(association, tiny(named(3)), sop_instance="2.25.3.3")
    assert following is not None
    assert following.Status == 0x0000


def test_every_real_file_is_stored_byte_for_byte_or_refused_at_negotiation(node: Node, test_data: Path) -> None:
    accepted, refused = set(), []
    files = sorted((test_data / "ct_transfer_syntaxes").iterdir())
    assert len(files) == 19
    for path in files:
        meta, data = split_file(path)
        uid, syntax = str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
        with associated(node.port, (str(meta.MediaStorageSOPClassUID), syntax)) as association:
            if not association.accepted_contexts:
                refused.append(syntax)
                continue
            response = raw_store(association, data, sop_instance=uid)
            assert response is not None
            assert response.Status == 0x0000, path.name
        kept = [split_file(file) for file in node.layout.spool.glob(f"*/*/{uid}*.dcm")]
        assert any(bytes_ == data and meta.TransferSyntaxUID == syntax for meta, bytes_ in kept), path.name
        accepted.add(syntax)
    assert accepted == {syntax.uid for syntax in UNCOMPRESSED + COMPRESSED}
    assert sorted(refused) == [
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.4.55",
    ]


@pytest.mark.parametrize("folder", ["odd_dicom", "ct_head_tilted", "ct_enhanced", "ct_liver_3slice_seg"])
def test_whatever_odd_file_is_sent_is_stored_or_refused_with_a_status(
    tmp_path: Path, test_data: Path, capfd: pytest.CaptureFixture[str], folder: str
) -> None:
    outcomes: dict[int, int] = {}
    refused = 0
    with running(tmp_path) as node:
        for path in sorted(path for path in (test_data / folder).rglob("*") if path.is_file()):
            try:
                meta, data = split_file(path)
                uid, sop_class, syntax = (
                    str(meta.MediaStorageSOPInstanceUID),
                    str(meta.MediaStorageSOPClassUID),
                    str(meta.TransferSyntaxUID),
                )
            except AttributeError:
                continue  # without file meta information it cannot be sent
            with associated(node.port, (sop_class, syntax)) as association:
                if not association.accepted_contexts:
                    refused += 1
                    continue
                response = raw_store(association, data, sop_class=sop_class, sop_instance=uid or "1.2.3")
                assert response is not None, path.name
                outcomes[response.Status] = outcomes.get(response.Status, 0) + 1
        stored = len(node.stored())
    assert outcomes.get(0x0000, 0) >= stored > 0
    assert set(outcomes) <= {0x0000, 0xA900, 0xC000, 0xC001, 0xC002}
    log = capfd.readouterr().err
    assert "Traceback" not in log
    assert log.count("nothing that TESTER offers") + log.count("can be decoded here") == refused


@pytest.mark.parametrize("uid", [sop.uid for sop in SOP_CLASSES if "Storage" in sop.name])
def test_each_accepted_class_is_acknowledged_our_own_results_included(node: Node, uid: str) -> None:
    with associated(node.port, (uid, EXPLICIT)) as association:
        response = raw_store(association, tiny(named(4, uid)), sop_class=uid, sop_instance="2.25.3.4")
        assert response is not None
        assert response.Status == 0x0000


@dataclass
class Here:
    """A receiver in this process, where a test can break its disk."""

    port: int
    folder: Path
    receiver: Receiver


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    chosen = settings_for(tmp_path)
    DataLayout(chosen.data_dir).create()
    receiver = Receiver(chosen)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            receiver.serve(connection, over_limit=False)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Here(listening.getsockname()[1], chosen.data_dir, receiver)
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("code", "status"), [(errno.ENOSPC, 0xA700), (errno.EDQUOT, 0xA700), (errno.EIO, 0x0110), (errno.EROFS, 0x0110)]
)
def test_a_disk_that_refuses_is_answered_so_that_the_sender_tries_again(
    here: Here, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    spool = here.folder / "spool"

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with associated(here.port) as association:
        with monkeypatch.context() as full:
            full.setattr(os, "writev", refuse)
            response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
            assert response is not None
            assert response.Status == status
            assert [path for path in spool.rglob("*") if path.is_file()] == []
        response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
        assert response is not None
        assert response.Status == 0x0000


def test_what_is_too_large_for_the_memory_goes_through_the_disk(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "IN_MEMORY", 100_000)
    large = tiny(named(1), os.urandom(1_000_000))
    writev = os.writev

    def refuse_large(fd: int, parts: list[memoryview]) -> int:
        if os.fstat(fd).st_nlink == 0 and os.fstat(fd).st_size > 500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return writev(fd, parts)

    with associated(here.port) as association:
        with monkeypatch.context() as full:
            full.setattr(os, "writev", refuse_large)
            response = raw_store(association, large, sop_instance="2.25.3.1")
            assert response is not None
            assert response.Status == 0xA700
        for data, number in ((tiny(named(2)), 2), (large, 1), (tiny(named(3)), 3)):
            response = raw_store(association, data, sop_instance=f"2.25.3.{number}")
            assert response is not None
            assert response.Status == 0x0000
    assert split_file(here.folder / "spool/2.25.1/2.25.2/2.25.3.1.dcm")[1] == large


def test_a_peer_that_drips_its_request_loses_its_place(here: Here) -> None:
    here.receiver._ae.acse_timeout = 0.5
    with socket.create_connection(("127.0.0.1", here.port), timeout=30) as peer:
        peer.sendall(b"\x01\0" + struct.pack(">L", 1000))  # a request of 1000 bytes is announced

        def dripped() -> bool:
            time.sleep(0.1)
            return hung_up(peer, b"\0")

        assert eventually(dripped)


def test_an_association_that_does_not_end_is_aborted_when_the_node_stops(here: Here) -> None:
    with associated(here.port) as association:
        assert association.is_established
        here.receiver.drain(0.1)
        assert eventually(lambda: association.is_aborted)
    (lease,) = read_leases(here.folder / "associations")
    assert lease.closed_at is not None


def test_an_association_whose_peer_is_gone_ends_when_it_is_interrupted(here: Here) -> None:
    with associated(here.port) as association:
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        here.receiver.drain(0.0)  # and the fixture waits for its thread


def test_a_peer_that_goes_on_sending_after_the_abort_is_hung_up_on(here: Here) -> None:
    release = b"\x05\0" + struct.pack(">L", 4) + bytes(4)
    with socket.create_connection(("127.0.0.1", here.port), timeout=30) as peer:
        peer.sendall(b"\x04\0" + struct.pack(">L", 6) + b"\0\0\0\2\1\3")  # data before a request: aborted
        assert eventually(lambda: hung_up(peer, release))


def hung_up(peer: socket.socket, message: bytes) -> bool:
    try:
        peer.sendall(message)
    except ConnectionError:
        return True
    return False


def test_no_association_is_accepted_that_could_not_be_leased(here: Here) -> None:
    shutil.rmtree(here.folder / "associations")
    assert rejection(here.port) == (2, 3, 1)


def talk(port: int, *messages: bytes) -> bytes:
    """Send bytes; return what comes back until the node closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        received = b""
        for message in messages:
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


@pytest.mark.parametrize("end", ["abort", "close"])
def test_an_instance_that_breaks_off_is_not_stored(node: Node, end: str) -> None:
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = CT
    request.AffectedSOPInstanceUID = "2.25.3.8"
    request.Priority = 0
    request.DataSet = BytesIO(tiny(named(8), bytes(50_000)))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    with associated(node.port) as association:
        known = {lease.id for lease in node.leases().live(time.time())}
        for pdata in list(message.encode_msg(1, 16384))[:-1]:
            association.dul.send_pdu(pdata)
        if end == "abort":
            association.abort()
        else:
            assert eventually(association.dul.to_provider_queue.empty)
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        assert eventually(lambda: not known & {lease.id for lease in node.leases().live(time.time())})
    assert not any("2.25.3.8" in name or name.endswith(".part") for name in node.stored())


def test_dcmtk_sends_a_compressed_series_as_it_is(node: Node, program: Callable[[str], str], test_data: Path) -> None:
    sources = sorted((test_data / "ct_liver_j2k").iterdir())
    send = [program("dcmsend"), "-aet", "TESTER", "-aec", "M3NODE", "-dn", "127.0.0.1", str(node.port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    assert subprocess.run([*send, *map(str, sources)], check=False, env=environment).returncode == 0
    for path in sources:
        sent = pydicom.dcmread(path)
        kept = pydicom.dcmread(
            node.layout.spool / sent.StudyInstanceUID / sent.SeriesInstanceUID / f"{sent.SOPInstanceUID}.dcm"
        )
        assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert kept == sent


def test_a_second_message_before_the_first_is_answered_aborts_and_stores_no_mixture(node: Node) -> None:
    body = b""
    for number in (6, 7):
        request = C_STORE()
        request.MessageID = number
        request.AffectedSOPClassUID = CT
        request.AffectedSOPInstanceUID = f"2.25.3.{number}"
        request.Priority = 0
        request.DataSet = BytesIO(tiny(named(number)))
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        for pdata in message.encode_msg(1, 0):
            for context, value in pdata.presentation_data_value_list:
                body += struct.pack(">LB", len(value) + 1, context) + value
    with associated(node.port) as association:
        association.dul.socket.socket.sendall(b"\x04\0" + struct.pack(">L", len(body)) + body)
        assert eventually(lambda: association.is_aborted)
    assert not any("2.25.3.7.dcm" in name for name in node.stored())
