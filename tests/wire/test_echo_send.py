from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.events import Event

from fake_pacs import fake_pacs
from m3node.cli.main import main
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.echo import echo
from m3node.delivery.send import find_sendable, send
from m3node.delivery.store_scu import StoreAssociation
from m3node.errors import DeliveryError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from ports import free_port

QUICK = Timeouts(connect=60.0, response=60.0)
CT = (str(CTImageStorage),)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    write_ct_series(folder, np.zeros((5, 8, 8), np.int16), axial_geometry((5, 8, 8), (2.0, 1.0, 1.0)), seed="send")
    return folder


def test_echo_says_that_a_peer_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with fake_pacs() as pacs:
        assert main(["echo", f"PACS@127.0.0.1:{pacs.port}"]) == 0
    assert capsys.readouterr().out.startswith(f"PACS@127.0.0.1:{pacs.port} answers (")


def test_echo_in_json_has_status_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with fake_pacs() as pacs:
        assert main(["echo", "--json", f"PACS@127.0.0.1:{pacs.port}"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == 0
    assert answer["seconds"] > 0


def test_echo_of_a_closed_port_is_exit_1_and_says_refused(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main(["echo", f"PACS@127.0.0.1:{port}"]) == 1
    assert f"no connection to PACS@127.0.0.1:{port}: Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["a" * 70, "b..c", "no-such-host.invalid", "[::zz]"])
def test_echo_of_a_host_that_cannot_be_found_is_exit_1(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["echo", f"PACS@{host}:104"]) == 1
    assert capsys.readouterr().err.startswith(f"m3node: no connection to PACS@{host}:104: ")


def test_echo_uses_the_calling_title_and_shows_the_peers_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    with fake_pacs(require_calling=["SCANNER"]) as pacs:
        peer = f"PACS@127.0.0.1:{pacs.port}"
        assert main(["echo", peer]) == 1
        assert "Calling AE title not recognised" in capsys.readouterr().err
        assert main(["echo", "--calling", "SCANNER", peer]) == 0


def test_echo_of_a_peer_without_verification_says_so() -> None:
    ae = AE(ae_title="PACS")
    ae.add_supported_context(CTImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    peer = Peer("PACS", "127.0.0.1", server.server_address[1])
    with pytest.raises(DeliveryError, match="does not accept Verification"):
        echo(peer, "M3NODE", QUICK)
    ae.shutdown()


def test_echo_of_a_peer_that_hangs_up_says_that_it_does_not_answer() -> None:
    with (
        fake_pacs(handlers=[(evt.EVT_C_ECHO, lambda event: event.assoc.abort() or 0x0000)]) as pacs,
        pytest.raises(DeliveryError, match="does not answer C-ECHO"),
    ):
        echo(Peer("PACS", "127.0.0.1", pacs.port), "M3NODE", QUICK)


@pytest.mark.parametrize("wrong", ["", "PACS@host", "PACS@host:0", "host:104"])
@pytest.mark.parametrize("command", [["echo"], ["send", "."]])
def test_a_peer_that_cannot_be_read_is_wrong_usage(
    command: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, wrong])
    assert caught.value.code == 2
    assert "AE@HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--calling", "SEVENTEEN_LETTERS"), "is no AE title"),
        (("--timeout", "soon"), "is no number of seconds"),
        (("--timeout", "0"), "cannot be waited"),
        (("--timeout", "nan"), "cannot be waited"),
    ],
)
def test_a_wrong_option_is_wrong_usage(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["echo", "PACS@127.0.0.1:104", *arguments])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_send_gives_every_file_of_a_folder_over_one_association(
    series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_pacs(classes=CT) as pacs:
        assert main(["send", str(series), f"PACS@127.0.0.1:{pacs.port}"]) == 0
        assert pacs.associations == 1
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in series.iterdir()}
    assert set(pacs.kept) == uids
    assert f"5 of 5 objects stored by PACS@127.0.0.1:{pacs.port}" in capsys.readouterr().out


def test_send_gives_each_file_in_its_own_transfer_syntax(test_data: Path) -> None:
    arrived: set[str] = set()

    def note(event: Event) -> int:
        arrived.add(str(event.context.transfer_syntax))
        return 0x0000

    found = find_sendable(test_data / "ct_transfer_syntaxes")
    assert len(found.items) == 19
    ae = AE(ae_title="PACS")
    ae.supported_contexts = [
        build_context(uid, sorted({i.syntax.transfer_syntax_uid for i in found.items}))
        for uid in {item.syntax.sop_class_uid for item in found.items}
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, note)])
    shipment = send(found.items, Peer("PACS", "127.0.0.1", server.server_address[1]), "M3NODE", Timeouts())
    ae.shutdown()
    assert shipment.stored == 19
    assert arrived == {item.syntax.transfer_syntax_uid for item in found.items}


def test_send_names_what_it_does_not_send_and_why(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (series / "notes.txt").write_text("not DICOM")
    ds = pydicom.dcmread(series / "0000.dcm")
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    ds.save_as(series / "DICOMDIR")
    with fake_pacs(classes=CT) as pacs:
        assert main(["send", "--json", str(series), f"PACS@127.0.0.1:{pacs.port}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stored"] == 5
    assert told["failed"] == []
    assert told["skipped"] == [
        {"file": "DICOMDIR", "reason": "a DICOMDIR: it lists files and is not sent"},
        {"file": "notes.txt", "reason": "not a DICOM file (PS3.10)"},
    ]


def test_send_of_one_file_sends_it(series: Path) -> None:
    with fake_pacs(classes=CT) as pacs:
        assert main(["send", str(series / "0003.dcm"), f"PACS@127.0.0.1:{pacs.port}"]) == 0
    assert len(pacs.kept) == 1


def test_send_goes_on_after_a_refusal_and_ends_with_1(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = str(pydicom.dcmread(series / "0001.dcm").SOPInstanceUID)
    with fake_pacs(lambda e: 0xA900 if e.request.AffectedSOPInstanceUID == refused else 0, classes=CT) as pacs:
        assert main(["send", "--json", str(series), f"PACS@127.0.0.1:{pacs.port}"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["stored"] == 4
    assert told["failed"] == [
        {
            "file": "0001.dcm",
            "sop_instance_uid": refused,
            "status": 0xA900,
            "message": "0xA900 data set does not match SOP class",
        }
    ]


def test_send_goes_on_over_a_new_association_when_one_is_lost(series: Path) -> None:
    fatal = str(pydicom.dcmread(series / "0001.dcm").SOPInstanceUID)

    def abort(event: Event) -> int:
        if event.request.AffectedSOPInstanceUID == fatal:
            event.assoc.abort()
        return 0x0000

    with fake_pacs(abort, classes=CT) as pacs:
        shipment = send(find_sendable(series).items, Peer("PACS", "127.0.0.1", pacs.port), "M3NODE", QUICK)
        assert pacs.associations == 2
    assert shipment.stored == 4
    assert [item.sop_instance_uid for item, _ in shipment.failed] == [fatal]


def test_send_of_more_classes_than_one_association_has_contexts_takes_two(tmp_path: Path, series: Path) -> None:
    ds = pydicom.dcmread(series / "0000.dcm")
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts[:130]]
    assert len(classes) == 130
    many = tmp_path / "many"
    many.mkdir()
    for n, uid in enumerate(classes):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.5.{n}"
        ds.save_as(many / f"{n}.dcm")
    accepted: list[int] = []
    count = (evt.EVT_ACCEPTED, lambda event: accepted.append(len(event.assoc.requestor.requested_contexts)))
    with fake_pacs(classes=classes[:100], handlers=[count]) as pacs:
        shipment = send(find_sendable(many).items, Peer("PACS", "127.0.0.1", pacs.port), "M3NODE", QUICK)
    assert accepted == [128, 2]
    assert (shipment.stored, len(shipment.failed)) == (100, 30)


def test_send_says_for_each_object_left_that_the_peer_has_gone(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    plain = StoreAssociation.__enter__

    def open_once(self: StoreAssociation) -> StoreAssociation:
        opened.append(1)
        if len(opened) > 1:
            raise DeliveryError("no connection", retryable=True)
        return plain(self)

    monkeypatch.setattr(StoreAssociation, "__enter__", open_once)
    with fake_pacs(lambda event: event.assoc.abort() or 0, classes=CT) as pacs:
        shipment = send(find_sendable(series).items, Peer("PACS", "127.0.0.1", pacs.port), "M3NODE", QUICK)
    assert shipment.stored == 0
    assert [sent.message for _, sent in shipment.failed[1:]] == ["no connection"] * 4


def test_send_to_a_peer_that_takes_no_ct_says_so_for_each(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_pacs(classes=()) as pacs:
        assert main(["send", str(series), f"PACS@127.0.0.1:{pacs.port}"]) == 1
    captured = capsys.readouterr()
    assert "0 of 5 objects stored" in captured.out
    assert captured.err.count("the peer does not accept CT Image Storage in Explicit VR Little Endian") == 5


def test_send_of_a_folder_without_dicom_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    assert main(["send", str(tmp_path), f"PACS@127.0.0.1:{free_port()}"]) == 1
    assert "0 of 0 objects" in capsys.readouterr().out


def test_send_of_what_is_not_there_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", str(tmp_path / "gone"), f"PACS@127.0.0.1:{free_port()}"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_send_shows_plain_lines_where_there_is_no_terminal(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_pacs(classes=CT) as pacs:
        main(["send", str(series), f"PACS@127.0.0.1:{pacs.port}"])
    assert "sending: 5 of 5" in capsys.readouterr().err
