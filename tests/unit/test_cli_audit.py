"""``m3node audit`` shows the trail to its owner, and is in it."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import audited
from m3node.audit import files
from m3node.audit.events import (
    ApplicationActivity,
    InstancesAccessed,
    InstancesTransferred,
    Node,
    SecurityAlert,
    UserAuthentication,
)
from m3node.audit.reading import parse
from m3node.audit.trail import AuditTrail
from m3node.cli.main import main
from m3node.settings import Settings

CT = "1.2.840.10008.5.1.4.1.1.2"
NOON, HOUR = 1_732_276_800.0, 3600.0  # 2024-11-22T12:00Z

Say = Callable[..., list[str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run the command over a trail of a day; its lines without the heading."""
    trail = AuditTrail(Settings(data_dir=tmp_path), process="serve")
    scanner, archive = Node("CT1", "10.1.2.3"), Node("PACS", "10.1.2.9")
    trail.record(ApplicationActivity(started=True), at=NOON)
    trail.record(InstancesTransferred("in", scanner, "1.2.3", "P-4711", {CT: 300}, receiver="new"), at=NOON + HOUR)
    trail.record(InstancesTransferred("out", archive, "1.2.4", "P-4712", {CT: 1}, failed="0xC000"), at=NOON + 2 * HOUR)
    trail.record(SecurityAlert("node authentication", Node("EVIL", "10.6.6.6"), "not known"), at=NOON + 3 * HOUR)
    trail.record(UserAuthentication("admin", "10.0.0.9", "login"), at=NOON + 4 * HOUR)
    trail.record(InstancesAccessed("admin", "10.0.0.9", "1.2.3", "P-4711"), at=NOON + 12 * HOUR)

    def run(*words: str, status: int = 0) -> list[str]:
        assert main(["audit", "--data-dir", str(tmp_path), *words]) == status
        return capsys.readouterr().out.splitlines()

    return run


def test_each_event_is_a_line_that_says_when_what_who(say: Say) -> None:
    heading, *lines = say("--until", "2024-11-23")
    assert heading.split() == ["TIME", "(UTC)", "EVENT", "WHO", "WHAT"]
    assert [" ".join(line.split()) for line in lines] == [
        "2024-11-22 12:00:00.000 Application Activity: Application Start M3NODE (m3node serve)",
        "2024-11-22 13:00:00.000 DICOM Instances Transferred CT1@10.1.2.3 > M3NODE (m3node serve)"
        " study 1.2.3; 300 instances",
        "2024-11-22 14:00:00.000 DICOM Instances Transferred M3NODE (m3node serve) > PACS@10.1.2.9"
        " serious failure; 0xC000; study 1.2.4; 1 instance",
        "2024-11-22 15:00:00.000 Security Alert: Node Authentication EVIL@10.6.6.6"
        " serious failure; node authentication: not known",
        "2024-11-22 16:00:00.000 User Authentication: Login admin@10.0.0.9",
        "2024-11-23 00:00:00.000 DICOM Instances Accessed admin@10.0.0.9 study 1.2.3",
    ]


@pytest.mark.parametrize(
    ("words", "hours"),
    [
        (("--since", "2024-11-22T14:00", "--until", "2024-11-22T16:00"), [14, 15]),
        (("--since", "2024-11-22T15:30+01:00", "--until", "2024-11-22"), [15, 16]),
        (("--until", "2024-11-22"), [12, 13, 14, 15, 16]),
        (("--event", "security-alert"), [15]),
        (("--study", "1.2.3", "--until", "2024-11-22"), [13]),
        (("--study", "1.2"), []),
    ],
)
def test_what_is_shown_can_be_chosen(say: Say, words: tuple[str, ...], hours: list[int]) -> None:
    assert [int(line[11:13]) for line in say(*words)[1:]] == hours


def test_json_has_all_of_it(say: Say) -> None:
    record = json.loads(say("--event", "instances-transferred", "--json")[0])
    assert record["at"] == "2024-11-22T13:00:00.000+00:00"
    assert (record["study_instance_uid"], record["patient_id"]) == ("1.2.3", "P-4711")
    assert (record["action"], record["outcome"], record["sop_classes"]) == ("C", "success", {CT: 300})
    assert record["participants"][0] == {
        "user": "CT1",
        "name": "",
        "ae_title": "CT1",
        "address": "10.1.2.3",
        "role": "Source Role ID",
        "requestor": True,
    }


def test_a_patient_id_is_not_shown_unasked(say: Say) -> None:
    assert "P-47" not in "\n".join(say())


def test_each_look_is_recorded_with_who_looked(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say()
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("SUDO_USER", "alice")
    say("--event", "security-alert")
    looks = audited.named(audited.valid(tmp_path / "audit"), "Audit Log Used")
    assert len(looks) == 2
    assert looks[1].find("ActiveParticipant").get("UserID") == f"{pwd.getpwuid(os.getuid()).pw_name} (sudo of alice)"
    assert audited.object_id(looks[0], "12") == (tmp_path / "audit").as_uri()
    assert "Audit Log Used" in say("--event", "audit-log-used")[-1]


def test_what_is_no_message_is_left_out_and_counted(
    say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "audit" / "2001-01.xml").open("wb") as stream:
        stream.write(b"<AuditMess\n<a/>\n\xff\xfe\n<AuditMessage></AuditMessage>\n<AuditMessage>half")
    assert main(["audit", "--data-dir", str(tmp_path), "--event", "security-alert"]) == 0
    said = capsys.readouterr()
    assert "4 lines are no whole message" in said.err
    assert len(said.out.splitlines()) == 2


@pytest.mark.parametrize(
    "line", [b"", b"x", b"<AuditMessage/>", b"<AuditMessage><EventIdentification/></AuditMessage>"]
)
def test_a_line_that_is_no_message_is_none(line: bytes) -> None:
    assert parse(line) is None


def test_without_a_trail_none_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--data-dir", str(tmp_path)]) == 1
    assert "there is no audit trail" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["yesterday", "2026-13-01", ""])
def test_a_time_that_is_none_is_said_with_one_that_is(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--since", word])
    assert "write 2026-11-22" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_somebody_else_is_refused_and_told_whose_it_is(say: Say, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    program = (
        "import os, sys; sys.path[:0] = eval(sys.argv[2]); from m3node.cli.main import main; import m3node.cli.audit;"
        "import m3node.audit.trail, m3node.audit.reading;"
        "os.setuid(65534); sys.exit(main(['audit', '--data-dir', sys.argv[1]]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), repr(sys.path)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "only its owner may read the audit trail; become that user: sudo -u root m3node audit" in answer.stderr
    assert audited.named(audited.valid(tmp_path / "audit"), "Audit Log Used") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give files away")
def test_what_the_superuser_adds_belongs_to_the_node(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    files.append(tmp_path / "audit", b"<a/>", 0.0)
    for path in (tmp_path / "audit", tmp_path / "audit" / "1970-01.xml"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (4711, 4712)
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0
