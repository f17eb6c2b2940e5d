"""What goes out is in the audit trail: each object when it is there, or when it is given up, and not in between."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from delivering import QUICK, RUN, SEG, for_class, go, left, queue, queue_one
from lxml import etree
from pydicom.uid import SegmentationStorage

import audited
from fake_pacs import CLASS_OF, fake_pacs, make_run
from m3node.delivery.outbox import box_of, rewrite
from m3node.delivery.queueing import enqueue
from m3node.delivery.transfers import transferred
from m3node.evaluation.ct_writer import seeded_uid
from m3node.layout import DataLayout
from m3node.results.objects import ObjectKind
from m3node.settings import Destination

STUDY = seeded_uid(RUN, "study")


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def transfers(layout: DataLayout) -> list[etree._Element]:
    return audited.named(audited.of_node(layout), "DICOM Instances Transferred")


def facts(message: etree._Element) -> tuple[dict[str, int], str]:
    assert audited.object_id(message, "110180") == STUDY
    return audited.sop_classes(message), audited.outcome(message)


def test_each_object_that_is_stored_is_a_transfer_to_its_archive(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        queue(layout, pacs.destination())
        go(layout, pacs.destination())
    found = transfers(layout)
    report = CLASS_OF[ObjectKind.REPORT]
    assert sorted(map(facts, found), key=str) == sorted(
        [
            ({report: 1}, "0"),
            ({report: 1}, "0"),
            ({CLASS_OF[ObjectKind.SEGMENTATION]: 1}, "0"),
            ({CLASS_OF[ObjectKind.PRESENTATION]: 1}, "0"),
        ],
        key=str,
    )
    archive = audited.participant(found[0], "Destination")
    assert (archive.get("AlternativeUserID"), archive.get("NetworkAccessPointID")) == ("AETITLES=PACS", "127.0.0.1")
    assert audited.participant(found[0], "Source").get("AlternativeUserID") == "AETITLES=M3NODE"
    assert audited.participant(found[0], "Source").get("UserName") == "m3node deliver"


def test_the_patient_is_the_one_in_the_object(layout: DataLayout) -> None:
    (made,) = make_run(layout, RUN, [ObjectKind.REPORT])
    ds = pydicom.dcmread(made.path)
    ds.PatientID = "4711"
    ds.save_as(made.path)
    with fake_pacs() as pacs:
        digest = hashlib.sha256(made.path.read_bytes()).hexdigest()
        enqueue(layout, RUN, [replace(made, sha256=digest)], [pacs.destination()])
        go(layout, pacs.destination())
    assert [audited.object_id(message, "2") for message in transfers(layout)] == ["4711"]


def test_an_object_that_is_refused_is_a_transfer_that_failed(layout: DataLayout) -> None:
    with fake_pacs(for_class(str(SegmentationStorage), 0xC000)) as pacs:
        queue(layout, pacs.destination())
        go(layout, pacs.destination())
    (failed,) = [message for message in transfers(layout) if audited.outcome(message) == "8"]
    assert facts(failed) == ({CLASS_OF[ObjectKind.SEGMENTATION]: 1}, "8")
    assert audited.words(failed).startswith("0xC000 ")
    assert len(transfers(layout)) == 4


def test_what_is_tried_again_is_no_transfer_yet(layout: DataLayout) -> None:
    with fake_pacs(0xA700) as pacs:
        queue_one(layout, pacs.destination())
        go(layout, pacs.destination())
        assert transfers(layout) == []
    nobody = pacs.destination()
    go(layout, nobody)
    assert transfers(layout) == []


@pytest.mark.parametrize("reached", [True, False])
def test_what_was_not_stored_for_too_long_is_a_transfer_that_failed(layout: DataLayout, reached: bool) -> None:
    with fake_pacs(0xA700) as pacs:
        to = pacs.destination()
        queue_one(layout, to, ObjectKind.SEGMENTATION)
        if reached:
            _tried_long_ago(layout)
            go(layout, to)
    if not reached:
        _tried_long_ago(layout)
        go(layout, to)
    (failed,) = transfers(layout)
    assert audited.words(failed).startswith("not stored for" if reached else "not reached for")


def test_what_is_given_up_along_with_it_is_one_as_well_each_object(layout: DataLayout) -> None:
    with fake_pacs() as pacs:
        nobody = pacs.destination()
    queue(layout, nobody)
    for entry in left(layout).values():
        rewrite(box_of(layout, "pacs"), entry, replace(entry, failing_since=1000.0, attempts=9))
    go(layout, nobody)
    assert left(layout) == {}
    assert sorted(next(iter(audited.sop_classes(message))) for message in transfers(layout)) == sorted(
        CLASS_OF[made.kind] for made in make_run(layout, RUN)
    )
    assert {audited.outcome(message) for message in transfers(layout)} == {"8"}
    assert all(audited.words(message).startswith("not reached for") for message in transfers(layout))


def _tried_long_ago(layout: DataLayout) -> None:
    entry = left(layout)[SEG]
    hours = QUICK.give_up_hours + 1
    rewrite(box_of(layout, "pacs"), entry, replace(entry, failing_since=time.time() - 3600 * hours, attempts=9))


def test_a_dicomweb_service_is_named_by_its_address(layout: DataLayout) -> None:
    service = Destination(name="web", url="https://pacs.example/dicom-web")
    (made,) = make_run(layout, RUN, [ObjectKind.REPORT])
    enqueue(layout, RUN, [made], [service])
    (entry,) = left(layout, "web").values()
    event = transferred(layout, service, entry)
    assert (event.peer.ae_title, event.peer.address) == ("", "https://pacs.example/dicom-web")
