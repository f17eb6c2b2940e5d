from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage, SegmentationStorage

from m3node.demo.returned import COMPREHENSIVE_3D_SR


def demo(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "m3node", "demo", "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")},
    )


def nothing_listens(log: str) -> bool:
    port = int(re.search(r"listening on 127\.0\.0\.1:(\d+)", log).group(1))
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_the_demo_finds_the_planted_lesions_in_what_came_back(tmp_path: Path) -> None:
    ended = demo(tmp_path / "demo")
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found, false = map(int, re.search(r"(\d) of 5 planted lesions found, (\d) false", ended.stdout).groups())
    assert found >= 4
    assert false <= 1
    assert "Not for clinical use" in ended.stdout
    assert "sending: 90 of 90" in ended.stderr
    picture = Path(re.search(r"picture: (.*)", ended.stdout).group(1))
    assert picture.read_bytes().startswith(b"\x89PNG")
    classes = [str(pydicom.dcmread(path).SOPClassUID) for path in (tmp_path / "demo" / "archive").rglob("*.dcm")]
    assert sorted(classes) == sorted(
        [
            COMPREHENSIVE_3D_SR,
            COMPREHENSIVE_3D_SR,
            str(SegmentationStorage),
            str(GrayscaleSoftcopyPresentationStateStorage),
        ]
    )
    log = (tmp_path / "demo" / "node.log").read_text()
    assert nothing_listens(log)
    assert "Traceback" not in log
    assert not list((tmp_path / "demo").glob(".node-*"))


@pytest.mark.slow
def test_the_demo_of_a_healthy_phantom_finds_at_most_one_false_lesion(tmp_path: Path) -> None:
    ended = demo(tmp_path / "demo", "--healthy", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    print(len(report["comparison"]["false"]), "false lesions in", round(report["seconds"]), "s")
    assert report["succeeded"]
    assert report["comparison"]["rows"] == []
    assert len(report["comparison"]["false"]) <= 1
    assert ended.stderr == ""


@pytest.mark.slow
def test_the_demo_takes_the_users_own_series(tmp_path: Path, test_data: Path) -> None:
    ended = demo(tmp_path / "demo", "--input", str(test_data / "ct_liver_j2k"), "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert report["sent"] == 20
    assert report["not_sent"] == 0
    assert report["comparison"] is None
    (answer,) = report["answers"]
    assert answer["outcome"] in ("lesions", "no-lesion")
    assert len(answer["objects"]) >= 2
    assert Path(answer["picture"]).is_file()


@pytest.mark.slow
def test_the_demo_says_why_a_series_is_not_used(tmp_path: Path, test_data: Path) -> None:
    ended = demo(tmp_path / "demo", "--input", str(test_data / "ct_head_tilted"))
    assert ended.returncode == 1
    assert re.search(r"^not used: .* is tilted 18\.5° from the axial plane", ended.stdout, re.MULTILINE)
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_no_process_and_no_scratch_folder(
    tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "m3node", "demo", "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    while "starting archive and node: 1 of 1" not in process.stderr.readline():
        assert process.poll() is None
    node = int(re.search(r"started acceptor \(process (\d+)\)", (out / "node.log").read_text()).group(1))
    process.send_signal(number)
    process.communicate()
    assert process.wait(60) == 130
    assert not Path(f"/proc/{node}").exists()
    assert nothing_listens((out / "node.log").read_text())
    assert not list(out.glob(".node-*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--out"),
        (("--out", "demo", "--input", "gone"), "there is no folder gone"),
        (("--out", "demo", "--input", ".", "--healthy"), "give one of them"),
        (("--out", "demo", "--seed", "-1"), "--seed takes a number from 0"),
    ],
)
def test_wrong_usage_of_the_demo_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "m3node", "demo", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert says in ended.stderr


def test_a_folder_without_dicom_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = demo(tmp_path / "demo", "--input", str(tmp_path / "empty"))
    assert ended.returncode == 1
    assert "holds no DICOM file" in ended.stderr
    assert not (tmp_path / "demo" / "node.log").exists()
