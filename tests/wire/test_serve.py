"""The running node answers each series once, whatever comes over the wire."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import RLELossless, SegmentationStorage

from m3node.evaluation.ct_writer import seeded_uid
from m3node.identity import DEVICE_UID
from made_series import bare_series
from served import ServedNode, serving

SETTINGS = """
[listener]
receivers = 1
callers = [
  {{ae_title = "PACS"}},
  {{ae_title = "PATIENT_PACS", quiet_seconds = 3600}},
]
[completeness]
quiet_seconds = 1
[watch]
folder = "{folder}"
out = "{out}"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    root = tmp_path_factory.mktemp("node")
    with serving(root, SETTINGS.format(folder=root / "in", out=root / "out")) as node:
        yield node
    assert "PHANTOM" not in node.log.upper()


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, ...]:
    """A series of the test's own: 12 slices without a liver."""
    return bare_series(tmp_path / "sent", request.node.name)


@pytest.fixture
def uid(request: pytest.FixtureRequest) -> str:
    """Series Instance UID of ``files``."""
    return seeded_uid(request.node.name, "series")


def test_a_series_becomes_a_manifest_and_the_manifest_a_run(
    node: ServedNode, files: tuple[Path, ...], uid: str
) -> None:
    node.send(*files)
    node.until(lambda: node.answered(f"{uid}.g1"))
    assert node.findings(f"{uid}.g1")["outcome"] == "no-liver"
    (manifest,) = node.manifests_of(uid)
    assert (len(manifest.slices), manifest.senders) == (12, ("PACS",))


def test_a_late_slice_makes_generation_2(node: ServedNode, files: tuple[Path, ...], uid: str) -> None:
    node.send(*files[:11])
    node.until(lambda: node.settled(uid, 11))
    node.send(files[11])
    node.until(lambda: node.settled(uid, 12))
    first, second = node.manifests_of(uid)
    assert (second.generation, second.supersedes, len(second.slices)) == (2, first.key, 12)


def test_a_transcoded_revision_changes_nothing(node: ServedNode, files: tuple[Path, ...], uid: str) -> None:
    node.send(*files)
    node.until(lambda: node.settled(uid, 12))
    ds = pydicom.dcmread(files[0])
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(files[0])
    node.send(files[0])
    node.until(lambda: node.settled(uid, 13))
    assert len(node.manifests_of(uid)) == 1


def test_a_revision_with_other_pixels_makes_generation_2(node: ServedNode, files: tuple[Path, ...], uid: str) -> None:
    node.send(*files)
    node.until(lambda: node.settled(uid, 12))
    ds = pydicom.dcmread(files[0])
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(files[0])
    node.send(files[0])
    node.until(lambda: node.settled(uid, 13))
    first, second = node.manifests_of(uid)
    assert (second.generation, second.supersedes, len(second.slices)) == (2, first.key, 12)


def test_our_own_object_coming_back_starts_nothing(node: ServedNode, files: tuple[Path, ...], uid: str) -> None:
    node.send(*files)
    node.until(lambda: node.settled(uid, 12))
    ds = pydicom.dcmread(files[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = seeded_uid(uid, "own")
    ds.SeriesInstanceUID = seeded_uid(uid, "own series")
    ds.DeviceUID = DEVICE_UID
    ds.save_as(files[0])
    node.send(files[0])
    node.until(lambda: node.settled(seeded_uid(uid, "own series"), 1))
    assert len(node.manifests_of(uid)) == 1
    assert not list(node.layout.results.glob(f"{seeded_uid(uid, 'own series')}*"))
    assert "our own object" in node.log


def test_an_unfit_series_gets_its_reason(node: ServedNode, files: tuple[Path, ...], uid: str) -> None:
    node.send(*files[:5])
    node.until(lambda: node.settled(uid, 5))
    findings = node.findings(f"{uid}.g1")
    assert (findings["outcome"], findings["rejection"]["reason"]) == ("rejected", "too-few-slices")
    assert any(uid in line and "too-few-slices" in line for line in node.log.splitlines())
    assert node.manifests_of(uid) == []


def test_a_sender_with_its_own_quiet_period_is_waited_for(
    node: ServedNode, files: tuple[Path, ...], uid: str, tmp_path: Path
) -> None:
    node.send(*files, calling="PATIENT_PACS")
    node.send(*bare_series(tmp_path / "hasty", (uid, "hasty")))
    node.until(lambda: node.settled(seeded_uid((uid, "hasty"), "series"), 12))
    assert node.manifests_of(uid) == []


def test_an_idle_live_association_holds_its_series_open(
    node: ServedNode, files: tuple[Path, ...], uid: str, tmp_path: Path
) -> None:
    other = bare_series(tmp_path / "other", (uid, "other"))
    association = node.associate()
    for file in files:
        assert association.send_c_store(file).Status == 0x0000
    node.send(*other)
    node.until(lambda: node.settled(seeded_uid((uid, "other"), "series"), 12))
    assert node.manifests_of(uid) == []
    association.release()
    node.until(lambda: node.settled(uid, 12))
    assert len(node.manifests_of(uid)) == 1


def test_the_death_of_any_process_but_the_first_is_survived(
    node: ServedNode, files: tuple[Path, ...], uid: str
) -> None:
    node.send(*files[:6])
    listening = node.log.count("listening on")
    for role in ("watch", "keeper", "clerk", "worker-0", "deliver", "acceptor"):
        started = node.log.count(f"started {role}")
        line = [line for line in node.log.splitlines() if f"started {role} (process" in line][-1]
        os.kill(int(line.split("(process ")[1].rstrip(")")), signal.SIGKILL)
        node.until(lambda role=role, started=started: node.log.count(f"started {role}") > started)
    node.until(lambda: node.log.count("listening on") > listening)
    node.send(*files[6:])
    node.until(lambda: node.settled(uid, 12))
    assert len(node.manifests_of(uid)[-1].slices) == 12


def test_a_second_node_on_the_same_data_folder_is_refused(node: ServedNode) -> None:
    command = [sys.executable, "-m", "m3node", "serve", "--config", str(node.config), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"runs already (process {node.pid} on" in second.stderr


def test_a_port_that_is_taken_ends_the_start_with_its_reason(node: ServedNode, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "m3node", "serve", "--data-dir", str(tmp_path), "--port", str(node.port)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{node.port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_ctrl_c_stops_every_process_in_order(tmp_path: Path) -> None:
    node = ServedNode(tmp_path, SETTINGS.format(folder=tmp_path / "in", out=tmp_path / "out"))
    try:
        node.start()
        assert node.stop(signal.SIGINT, group=True) == 0
        assert "Traceback" not in node.log
        assert "was killed" not in node.log
        assert not node.listens
    finally:
        node.clean_up()
