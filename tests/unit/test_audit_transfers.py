"""What came in is in the audit trail once its association is over, however that ended, for each study by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
from lxml import etree

import audited
from keeping import Node, changed
from m3node.audit.messages import instant
from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.keeper.keeper import run_keeper
from m3node.intake.receive.association import OpenLease
from m3node.intake.series.patient import patient_id

CT = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def association(node: Node, files: Sequence[Path], *, calling: str = "CT1", sop_class: str = CT) -> OpenLease:
    """An open association that has stored files."""
    lease = OpenLease(node.layout.associations, calling=calling, called="M3NODE", peer="10.1.2.3")
    for file in files:
        path, status = node.spool(file, sender=calling)
        lease.append(path, status, sop_class=sop_class)
    return lease


def transfers(node: Node) -> list[etree._Element]:
    return audited.named(audited.of_node(node.layout), "DICOM Instances Transferred")


def facts(message: etree._Element) -> tuple[str, str, dict[str, int], str, str]:
    source = audited.participant(message, "Source")
    return (
        audited.object_id(message, "110180"),
        audited.object_id(message, "2"),
        audited.sop_classes(message),
        audited.action(message),
        f"{source.get('UserID')}@{source.get('NetworkAccessPointID')}",
    )


def series(node: Node, seed: int, **attributes: Any) -> tuple[Path, ...]:
    return node.series(seed, PatientID=f"P{seed}", **attributes)


def test_nothing_is_recorded_while_the_association_is_open(node: Node) -> None:
    lease = association(node, series(node, 1))
    node.keeper.step()
    assert transfers(node) == []
    lease.close()
    node.keeper.step()
    (message,) = transfers(node)
    assert facts(message) == (seeded_uid(1, "study"), "P1", {CT: 12}, "C", "CT1@10.1.2.3")


def test_each_study_of_an_association_has_a_message_of_its_own(node: Node) -> None:
    first, second = series(node, 1), series(node, 2)
    association(node, [*first[:6], *second, *first[6:]]).close()
    node.keeper.step()
    assert [facts(message)[:3] for message in transfers(node)] == [
        (seeded_uid(1, "study"), "P1", {CT: 12}),
        (seeded_uid(2, "study"), "P2", {CT: 12}),
    ]


def test_two_senders_of_a_study_have_a_message_each(node: Node) -> None:
    files = series(node, 1)
    association(node, files[:5], calling="CT1").close()
    association(node, files[5:], calling="CT2").close()
    node.keeper.step()
    assert [facts(message)[2:5:2] for message in transfers(node)] == [
        ({CT: 5}, "CT1@10.1.2.3"),
        ({CT: 7}, "CT2@10.1.2.3"),
    ]


def test_what_was_there_before_is_a_transfer_too_and_says_so(node: Node) -> None:
    files = series(node, 1)
    association(node, files).close()
    association(node, files[:3]).close()
    node.keeper.step()
    assert [facts(message)[2:4] for message in transfers(node)] == [({CT: 12}, "C"), ({CT: 3}, "R")]


def test_a_revision_is_an_update(node: Node) -> None:
    files = series(node, 1)
    association(node, files).close()
    lease = association(node, [])
    path, _ = node.spool(files[0], revision="0badf00d")
    lease.append(path, "revision", sop_class=CT)
    lease.close()
    node.keeper.step()
    assert [facts(message)[3] for message in transfers(node)] == ["C", "U"]


def test_objects_that_are_of_no_use_here_are_transfers_as_well(node: Node) -> None:
    association(node, series(node, 1)[:1], sop_class=SR).close()
    node.keeper.step()
    assert [facts(message)[2] for message in transfers(node)] == [{SR: 1}]


def test_an_association_that_stored_nothing_is_no_transfer(node: Node) -> None:
    association(node, []).close()
    node.keeper.step()
    assert transfers(node) == []
    assert list(node.layout.associations.iterdir()) == []


def test_what_a_killed_receiver_had_stored_is_recorded(node: Node) -> None:
    lease = association(node, series(node, 1))
    first, *rest = lease.path.read_text().splitlines()
    gone = json.loads(first) | {"pid": 2**22 + 1, "started": "1"}
    lease.path.write_text("\n".join([json.dumps(gone), *rest, ""]))
    node.keeper.step()
    assert [facts(message)[2] for message in transfers(node)] == [{CT: 12}]


def test_a_keeper_that_was_killed_before_the_end_records_it_all(node: Node) -> None:
    files = series(node, 1)
    lease = association(node, files[:6])
    node.keeper.step()
    node.restart()
    for file in files[6:]:
        path, status = node.spool(file)
        lease.append(path, status, sop_class=CT)
    lease.close()
    node.keeper.step()
    assert [facts(message)[2] for message in transfers(node)] == [{CT: 12}]


def test_a_keeper_that_was_killed_between_message_and_lease_records_it_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    association(node, series(node, 1)).close()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        node.keeper.step()
        node.keeper.step()
    assert len(transfers(node)) == 1
    node.restart()
    node.keeper.step()
    assert len(transfers(node)) == 2  # once too often is better than never


def test_a_message_has_the_time_at_which_the_association_ended(node: Node) -> None:
    lease = association(node, series(node, 1))
    lease.close()
    closed = json.loads(lease.path.read_text().splitlines()[-1])["closed"]
    node.keeper.step()
    (message,) = transfers(node)
    assert message.find("EventIdentification").get("EventDateTime") == instant(closed)


def test_leases_of_the_release_before_count_without_a_class(node: Node) -> None:
    lease = association(node, series(node, 1))
    lease.path.write_text(lease.path.read_text().replace(f',"class":"{CT}"', ""))
    lease.close()
    node.keeper.step()
    assert [facts(message)[2] for message in transfers(node)] == [{"": 12}]


def test_the_patient_id_is_read_in_its_character_set(node: Node, tmp_path: Path) -> None:
    (file, *_) = series(node, 1)

    def rename(ds: pydicom.Dataset) -> None:
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.PatientID = "Müller-1"

    assert patient_id(changed(file, "umlaut.dcm", rename)) == "Müller-1"
    assert patient_id(changed(file, "none.dcm", lambda ds: ds.pop("PatientID"))) == ""
    broken = tmp_path / "broken.dcm"
    for content in (b"", b"no DICOM", file.read_bytes()[:300]):
        broken.write_bytes(content)
        assert patient_id(broken) == ""
    assert patient_id(tmp_path / "gone.dcm") == ""


def test_no_error_of_the_parser_costs_more_than_the_patient_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class UnforeseenError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise UnforeseenError

    monkeypatch.setattr("m3node.intake.series.patient.open_part10", fail)
    assert patient_id(tmp_path / "any.dcm") == ""


def test_a_keeper_that_is_told_to_stop_records_what_the_receivers_have_left(node: Node) -> None:
    association(node, series(node, 1)).close()
    stop = threading.Event()
    stop.set()
    run_keeper(node.settings, stop, record=lambda *_: None, content_digest=lambda path: "")
    assert [facts(message)[2] for message in transfers(node)] == [{CT: 12}]
    assert list(node.layout.associations.iterdir()) == []
