from __future__ import annotations

import errno
from pathlib import Path

import pydicom
import pytest
from pynetdicom.events import Event

from fake_pacs import make_run
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.echo import echo
from m3node.delivery.send import send
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import Sendable, StoreAssociation, sendable
from m3node.demo.archive import Archive
from m3node.demo.node import DemoError, Node
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind


def items(tmp_path: Path) -> list[Sendable]:
    return [sendable(item.path) for item in make_run(DataLayout(tmp_path / "data"), "1.2.3.g1", list(ObjectKind))]


def test_the_archive_answers_echo_and_keeps_every_kind_of_result_by_study(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive") as archive:
        peer = Peer(archive.ae_title, "127.0.0.1", archive.port)
        assert echo(peer, "M3NODE", Timeouts()).status == 0
        assert send(items(tmp_path), peer, "M3NODE", Timeouts()).stored == len(ObjectKind)
        kept = archive.kept
    assert {item.sop_instance_uid for item in kept} == {item.sop_instance_uid for item in items(tmp_path)}
    for item in kept:
        assert item.path == tmp_path / "archive" / item.study_instance_uid / f"{item.sop_instance_uid}.dcm"
        stored = pydicom.dcmread(item.path)
        assert str(stored.SOPInstanceUID) == item.sop_instance_uid
        assert str(stored.SeriesInstanceUID) == item.series_instance_uid


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_the_archive_does_not_let_a_uid_name_a_file_elsewhere(tmp_path: Path) -> None:
    ds = pydicom.dcmread(items(tmp_path)[0].path)
    ds.StudyInstanceUID = "../../elsewhere"
    path = tmp_path / "bad.dcm"
    ds.save_as(path)
    item = sendable(path)
    with Archive(tmp_path / "archive") as archive:
        with StoreAssociation(
            Peer(archive.ae_title, "127.0.0.1", archive.port), "M3NODE", [item.syntax], Timeouts()
        ) as association:
            sent = association.send(item)
        assert archive.kept == ()
    assert (sent.verdict, sent.status) == (Verdict.REFUSED, 0xC000)
    assert list((tmp_path / "archive").iterdir()) == []


def test_a_full_disk_is_answered_with_out_of_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(event: Event) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    item = items(tmp_path)[0]
    monkeypatch.setattr(Event, "encoded_dataset", full)
    with Archive(tmp_path / "archive") as archive:
        peer = Peer(archive.ae_title, "127.0.0.1", archive.port)
        ((_, sent),) = send([item], peer, "M3NODE", Timeouts()).outcomes
    assert sent.status == 0xA700


def test_a_node_that_cannot_start_is_said_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3node.demo.node._SETTINGS", "no_such_key = 1\n")
    node = Node(tmp_path, tmp_path / "node.log", Peer("ARCHIVE", "127.0.0.1", 104))
    with pytest.raises(DemoError, match=r"(?s)the node ended by itself.*no_such_key"):
        node.__enter__()
