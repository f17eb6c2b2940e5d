"""A running node audits what it does: each thing once, in messages that are valid, here and at the repository."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator

import pydicom
import pytest
from lxml import etree
from syslog_server import SyslogServer, syslog_server

import audited
from certified import Authority
from fake_pacs import FakePacs, fake_pacs
from m3node.audit.forwarded import standing
from m3node.evaluation.ct_writer import seeded_uid
from m3node.settings import load
from quick_node import archive, made
from quick_series import quick_series, series_uid
from served import CT, ServedNode

SEED = "audited"
RUN = f"{series_uid(SEED)}.g1"


@pytest.fixture(scope="module")
def pacs() -> Iterator[FakePacs]:
    with fake_pacs() as pacs:
        yield pacs


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def repository(authority: Authority) -> Iterator[SyslogServer]:
    with syslog_server(authority.issue("syslog")) as server:
        yield server


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, pacs: FakePacs, authority: Authority, repository: SyslogServer
) -> Iterator[ServedNode]:
    """A node that has got one study and sent its results, was killed, refused a stranger, and stopped in order."""
    root = tmp_path_factory.mktemp("audited")
    toml = archive(pacs) + (
        f'[audit]\nsite = "Radiology"\n[audit.syslog]\nhost = "127.0.0.1"\nport = {repository.port}\n'
        f'ca_file = "{authority.file}"\n'
    )
    with made(root, toml) as node:
        node.start()
        files = quick_series(root / "sent", SEED)
        node.send(*files)
        node.until(lambda: node.answered(RUN))
        objects = len(json.loads((node.layout.results / RUN / "run.json").read_text())["objects"])
        # Everything that is to come: start, in, and each object out.
        node.until(lambda: len(audited.lines(node.layout.audit)) >= 2 + objects)
        node.kill()
        node.start()
        for _ in range(3):
            assert node.associate("STRANGER").is_rejected
        settings = load(node.config)
        node.until(lambda: (view := standing(settings)) is not None and view.behind == 0)
        assert node.stop() == 0
        yield node


def messages(node: ServedNode) -> list[etree._Element]:
    return audited.of_node(node.layout)


def test_one_study_in_and_out_gives_exactly_these_events(node: ServedNode, pacs: FakePacs) -> None:
    found = Counter((audited.code(message), audited.code(message, "EventTypeCode")) for message in messages(node))
    assert found == {
        ("Application Activity", "Application Start"): 2,
        ("Application Activity", "Application Stop"): 2,
        ("DICOM Instances Transferred", ""): 1 + len(pacs.kept),
        ("Security Alert", "Node Authentication"): 2,
    }


def test_the_study_that_came_in_is_named_with_sender_and_count(node: ServedNode) -> None:
    (message,) = [item for item in messages(node) if audited.action(item) == "C"]
    files = sorted((node.root / "sent").rglob("*.dcm"))
    sent = pydicom.dcmread(files[0], stop_before_pixels=True)
    assert audited.object_id(message, "110180") == sent.StudyInstanceUID
    assert audited.object_id(message, "2") == sent.PatientID
    assert audited.sop_classes(message) == {CT: len(files)}
    source = audited.participant(message, "Source")
    assert (source.get("UserID"), source.get("NetworkAccessPointID")) == ("PACS", "127.0.0.1")


def test_each_object_that_went_out_is_named_by_class_with_its_archive(node: ServedNode, pacs: FakePacs) -> None:
    out = [item for item in messages(node) if audited.action(item) == "R"]
    objects = json.loads((node.layout.results / RUN / "run.json").read_text())["objects"]
    assert Counter(uid for item in out for uid in audited.sop_classes(item)) == Counter(
        pydicom.dcmread(node.layout.results / RUN / item["file"], stop_before_pixels=True).SOPClassUID
        for item in objects
    )
    for item in out:
        assert audited.participant(item, "Destination").get("AlternativeUserID") == "AETITLES=PACS"
        assert audited.outcome(item) == "0"


def test_that_it_was_killed_is_known_afterwards(node: ServedNode) -> None:
    activity = audited.named(messages(node), "Application Activity")
    kinds = [audited.code(item, "EventTypeCode").split()[1] for item in activity]
    assert kinds == ["Start", "Stop", "Start", "Stop"]
    assert [audited.outcome(item) for item in activity] == ["0", "8", "0", "0"]
    assert "ended without a word" in audited.words(activity[1])


def test_a_stranger_who_comes_three_times_is_named_once_and_counted_at_the_end(node: ServedNode) -> None:
    first, rest = audited.named(messages(node), "Security Alert")
    assert audited.object_id(first, "110182") == "STRANGER@127.0.0.1"
    assert audited.words(rest) == f"{audited.words(first)} (2 times more)"


def test_the_repository_has_every_message_in_order(node: ServedNode, repository: SyslogServer) -> None:
    bom = "\ufeff".encode()
    got = list(dict.fromkeys(message.partition(bom)[2] for message in repository.messages))
    here = audited.lines(node.layout.audit)
    assert got == here[: len(got)]
    # Those of the node's end go at its next start.
    assert all(b"Application Stop" in line or b"times more" in line for line in here[len(got) :])


def test_only_the_owner_reads_it_and_no_other_file_has_the_patient(node: ServedNode) -> None:
    (trail,) = node.layout.audit.glob("*.xml")
    assert (stat.S_IMODE(trail.stat().st_mode), stat.S_IMODE(trail.parent.stat().st_mode)) == (0o600, 0o700)
    sent = next((node.root / "sent").rglob("*.dcm"))
    patient = str(pydicom.dcmread(sent, stop_before_pixels=True).PatientID).encode()
    assert patient in trail.read_bytes()
    for path in (trail.with_name("forwarded.json"), node.log_file):
        assert patient not in path.read_bytes()


def test_the_command_shows_it(node: ServedNode) -> None:
    study = seeded_uid(SEED, "study")
    shown = node.says("audit", "--event", "instances-transferred", "--study", study)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert "PACS@127.0.0.1 > M3NODE (m3node keeper)" in lines[1]
    assert "M3NODE (m3node deliver) > PACS@127.0.0.1" in lines[2]
