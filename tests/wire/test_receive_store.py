"""What is sent is on disk as it was sent, or refused with a status that says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom.association import Association
from receiving import CT, EXPLICIT, Node, associated, element, named, raw_store, running, tiny

from fake_pacs import RESULT_CLASSES
from m3node.intake.receive.association import ArrivalEvent, LeaseReader
from m3node.intake.receive.contexts import COMPRESSED, STORAGE, UNCOMPRESSED
from m3node.intake.receive.identity import Identity
from part10_file import split_file

SC = "1.2.840.10008.5.1.4.1.1.7"


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


def test_an_instance_with_leading_zeros_in_its_uids_is_stored_under_them(node: Node, association: Association) -> None:
    data = tiny(Identity(CT, "2.25.03.007", "2.25.01", "2.25.02"))
    response = raw_store(association, data, sop_instance="2.25.03.007")
    assert response is not None
    assert (response.Status, response.AffectedSOPInstanceUID) == (0x0000, "2.25.03.007")
    assert split_file(node.layout.spool / "2.25.01/2.25.02/2.25.03.007.dcm")[1] == data


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


def test_the_lease_says_of_which_instances_the_sender_asked_for_high_priority(
    node: Node, association: Association
) -> None:
    for number, priority in ((71, 0), (72, 1), (73, 2)):
        response = raw_store(association, tiny(named(number)), sop_instance=f"2.25.3.{number}", priority=priority)
        assert response is not None
        assert response.Status == 0x0000
    arrivals = [event for lease in node.layout.associations.glob("*.jsonl") for event in _arrivals(lease)]
    urgent = {Path(event.path).stem: event.urgent for event in arrivals if "2.25.3.7" in event.path}
    assert urgent == {"2.25.3.71": False, "2.25.3.72": True, "2.25.3.73": False}


def _arrivals(path: Path) -> list[ArrivalEvent]:
    reader = LeaseReader(path.parent)
    return [event for event in reader.poll() if isinstance(event, ArrivalEvent) and event.association == path.stem]


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
        pytest.param(tiny(Identity(CT, "2.25.3.9", "2.25.1", "1..2")), (CT, "2.25.3.9"), 0xC001, id="two dots"),
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


@pytest.mark.parametrize("uid", sorted({*RESULT_CLASSES, *(sop.uid for sop in STORAGE)}))
def test_each_accepted_class_is_acknowledged_our_own_results_included(node: Node, uid: str) -> None:
    with associated(node.port, (uid, EXPLICIT)) as association:
        response = raw_store(association, tiny(named(4, uid)), sop_class=uid, sop_instance="2.25.3.4")
        assert response is not None
        assert response.Status == 0x0000


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
