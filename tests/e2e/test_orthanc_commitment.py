"""Orthanc's own storage commitment: asked over the wire, reported to the listener, acted on from the file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orthanc import Orthanc, start_orthanc

from fake_pacs import make_run
from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.commitment import act_on_reports, after_store
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import box_of, waiting
from m3node.delivery.queueing import enqueue
from m3node.delivery.state import DeliveryState
from m3node.delivery.status import Verdict
from m3node.delivery.store_scu import StoreAssociation, sendable
from m3node.intake.receive.acceptor import serve_associations
from m3node.intake.receive.commitment import acted_file, read_report
from m3node.layout import DataLayout
from m3node.settings import DeliverySettings, Destination, ListenerSettings, Settings
from made_series import phantom_series
from ports import free_port
from served import delivering, serving
from waiting import wait_for

NOW = 1_800_000_000.0


@contextmanager
def listening(settings: Settings) -> Iterator[None]:
    """The node's acceptor and receivers."""
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=serve_associations, args=(settings,), kwargs={"ready": lambda _: ready.set(), "stop": stop}
    )
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        stop.set()
        thread.join(60)


def prepared(folder: Path, orthanc: Orthanc) -> Settings:
    """Settings of a node that delivers to Orthanc and wants its commitment; each knows the other's port."""
    port = free_port()
    orthanc.add_modality("m3node", "M3NODE", port)
    to = Destination(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=orthanc.dicom_port, commitment=True)
    settings = Settings(
        data_dir=folder / "data",
        listener=ListenerSettings(port=port, receivers=1),
        destinations=(to,),
        delivery=DeliverySettings(retry_first_seconds=2.0),
    )
    layout = DataLayout(settings.data_dir)
    layout.create()
    enqueue(layout, "1.2.3.g1", make_run(layout, "1.2.3.g1"), [to])
    return settings


def store(settings: Settings, entries: tuple[Entry, ...]) -> None:
    to = settings.destinations[0]
    items = [sendable(settings.data_dir / entry.path) for entry in entries]
    peer = Peer("ORTHANC", to.host, to.port)
    with StoreAssociation(peer, "M3NODE", [item.syntax for item in items], Timeouts()) as association:
        assert {association.send(item).verdict for item in items} == {Verdict.STORED}


def all_settled(layout: DataLayout, settings: Settings) -> bool:
    """Act on the reports that have come; return whether nothing waits for one any more."""
    act_on_reports(layout, settings, NOW)
    return not waiting(box_of(layout, "orthanc"))


def test_what_orthanc_has_stored_it_commits_to_at_the_listener(tmp_path: Path, program: Callable[[str], str]) -> None:
    with start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc:
        settings = prepared(tmp_path, orthanc)
        layout, (to,) = DataLayout(settings.data_dir), settings.destinations
        box = box_of(layout, "orthanc")
        with listening(settings):
            entries = waiting(box)
            store(settings, entries)
            for entry in entries:
                after_store(layout, to, entry, settings, NOW)
            wait_for(lambda: all_settled(layout, settings))
    assert len(list(box.sent.glob("*.json"))) == 4
    reports = [read_report(path) for path in (layout.commitments / "acted").iterdir()]
    committed = {item.sop_instance_uid for report in reports for item in report.committed}
    assert committed == {entry.sop_instance_uid for entry in entries}
    assert {report.sender for report in reports} == {"ORTHANC"}


def test_what_orthanc_does_not_hold_goes_again_and_is_then_confirmed(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    with start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc:
        settings = prepared(tmp_path, orthanc)
        layout, (to,) = DataLayout(settings.data_dir), settings.destinations
        box = box_of(layout, "orthanc")
        entry = waiting(box)[0]
        with listening(settings):
            # As after a disk of the archive's was lost: it answered the store, and holds nothing.
            after_store(layout, to, entry, settings, NOW)
            wait_for(lambda: act_on_reports(layout, settings, NOW) or waiting(box)[0].state is DeliveryState.WAITING)
            again = waiting(box)[0]
            assert again.state is DeliveryState.WAITING
            assert (again.name, again.attempts, again.not_before) == (entry.name, 1, NOW + 2)
            assert again.last_error == "not committed to: 0x0112 no such object instance"
            store(settings, (again,))
            after_store(layout, to, again, settings, NOW + 2)
            wait_for(lambda: act_on_reports(layout, settings, NOW) or (box.sent / f"{entry.name}.json").exists())
        assert from_json((box.sent / f"{entry.name}.json").read_bytes()).state is DeliveryState.CONFIRMED
        assert len(orthanc.instances()) == 1
    assert read_report(acted_file(layout, again.transaction_uid)).failed[0].reason == 0x0112
    assert len(list((layout.commitments / "acted").iterdir())) == 2


def test_an_orthanc_that_does_not_let_us_ask_is_asked_again_later_and_the_object_is_not_sent_again(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    with start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc:
        settings = prepared(tmp_path, orthanc)
        layout, (to,) = DataLayout(settings.data_dir), settings.destinations
        box = box_of(layout, "orthanc")
        entry = waiting(box)[0]
        store(settings, (entry,))
        orthanc.add_modality("m3node", "M3NODE", settings.listener.port, commitment=False)
        # It accepts the association and drops the connection without an answer.
        after = after_store(layout, to, entry, settings, NOW)
        assert (after.state, after.requested_at, after.not_before) == (DeliveryState.STORED, 0.0, NOW + 2)
        orthanc.add_modality("m3node", "M3NODE", settings.listener.port)
        with listening(settings):
            after_store(layout, to, after, settings, NOW + 2)
            wait_for(lambda: act_on_reports(layout, settings, NOW) or (box.sent / f"{entry.name}.json").exists())
    assert from_json((box.sent / f"{entry.name}.json").read_bytes()).state is DeliveryState.CONFIRMED


def test_a_whole_node_has_its_results_confirmed_by_orthanc(tmp_path: Path, program: Callable[[str], str]) -> None:
    series = phantom_series(tmp_path / "series", 1)
    with (
        start_orthanc(program("Orthanc"), tmp_path / "orthanc") as orthanc,
        serving(
            tmp_path / "node", delivering("orthanc", "ORTHANC", orthanc.dicom_port, more="commitment = true")
        ) as node,
    ):
        orthanc.add_modality("m3node", "M3NODE", node.port)
        node.send(*series)
        box = box_of(node.layout, "orthanc")
        node.until(lambda: len(list(box.sent.glob("*.json"))) == 4, 120)
        held = {item["MainDicomTags"]["SOPInstanceUID"] for item in orthanc.instances()}
    entries = [from_json(path.read_bytes()) for path in box.sent.glob("*.json")]
    assert {entry.state for entry in entries} == {DeliveryState.CONFIRMED}
    assert {entry.sop_instance_uid for entry in entries} == held
    assert not waiting(box)
