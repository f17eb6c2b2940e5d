"""Whatever happens to a patient's series, nothing written beside DICOM objects and pictures names the patient."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from committing import report, reporter
from committing import send as send_report
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, SegmentationStorage
from receiving import associated, named, raw_store, tiny

import audited
from certified import Authority, Shown
from fake_pacs import FakePacs, fake_pacs
from m3node.evaluation.ct_writer import seeded_uid
from m3node.faults import VARIABLE
from made_series import bare_series, phantom_series
from ports import free_port
from quick_series import quick_environment, quick_series, series_uid
from seeded_patient import IDENTIFIER, KANJI, LATIN, NAME, PATIENT, nested, spilled
from served import ServedNode

SETTINGS = """
[listener]
receivers = 1
callers = [{{ae_title = "PACS"}}, {{ae_title = "TESTER"}}]
[listener.tls]
port = {tls_port}
certificate_file = "{shown.certificate}"
key_file = "{shown.key}"
client_certificates = "none"
[completeness]
quiet_seconds = 1
[selection]
rules = [{{action = "refuse", description = "^Research"}}]
[watch]
folder = "{root}/in"
out = "{root}/out"
settle_seconds = 0.5
[log]
level = "DEBUG"
format = "json"
folder = "{root}/logs"
[web]
port = {web_port}
[delivery]
retry_first_seconds = 0.2
response_seconds = 5
[[destinations]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
[[destinations]]
name = "cheat"
ae_title = "CHEAT"
host = "127.0.0.1"
port = 9
commitment = true
[[routing]]
destinations = ["archive"]
"""

TELLS = "M3NODE_TEST_TELLS"
"""Variable of the detector ``telling``."""

QUICK = """
[listener]
receivers = 1
callers = [{ae_title = "PACS"}]
[completeness]
quiet_seconds = 1
[detector]
name = "telling"
[log]
level = "DEBUG"
"""


def each(files: Iterable[Path], change: Callable[[int, Dataset], None]) -> None:
    for number, path in enumerate(files):
        ds = pydicom.dcmread(path)
        change(number, ds)
        ds.save_as(path)


def another_patient(number: int, ds: Dataset) -> None:
    ds.PatientID = f"{IDENTIFIER}-{number % 2}"


def not_jpeg(number: int, ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = pydicom.encaps.encapsulate([IDENTIFIER.encode() * 40])
    ds["PixelData"].VR = "OB"


def no_seg(number: int, ds: Dataset) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SegmentationStorage


def sent_series(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Series by what becomes of them."""
    patient = {**PATIENT, **nested()}
    bare = partial(bare_series, **patient)
    series = {
        "lesions": phantom_series(folder / "lesions", 1, **patient),
        "no liver": bare(folder / "no liver", "no liver"),
        "too few": bare(folder / "too few", "too few", slices=3),
        "mixed": bare(folder / "mixed", "mixed"),
        "broken": bare(folder / "broken", "broken"),
        "not selected": bare(folder / "not selected", "not selected", SeriesDescription="Research"),
        "localizer": bare(folder / "localizer", "localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "no seg": bare(folder / "no seg", "no seg", slices=1),
        "private": bare(folder / "private", "private", ImageComments=NAME, StationName=IDENTIFIER),
    }
    for what, character_set, name in (
        ("latin", "ISO_IR 100", LATIN),
        ("unicode", "ISO_IR 192", f"{LATIN}={KANJI}"),
        ("kanji", ["", "ISO 2022 IR 87"], f"YAMADA={KANJI}"),
    ):
        odd = {**patient, "SpecificCharacterSet": character_set, "PatientName": name}
        series[what] = bare_series(folder / what, what, **odd)
    each(series["mixed"], another_patient)
    each(series["broken"], not_jpeg)
    each(series["no seg"], no_seg)
    return series


def odd_files(folder: Path) -> list[Path]:
    """Files whose values stand where they do not belong: a name for a number, a UID or a transfer of bytes."""
    files = list(bare_series(folder, folder.name, **PATIENT))
    content = files[0].read_bytes()
    changes = (
        (b"1.000000", b"ZZTOPSEC"),
        (b"ISO_IR 192", b"ZZTOPSECRE"),
        (b"CS\x02\x00CT", b"ZZ\x02\x00CT"),
    )
    for old, new in changes:
        path = folder / f"odd-{len(files)}.dcm"
        path.write_bytes(content.replace(old, new))
        files.append(path)
    cut = folder / "cut.dcm"
    cut.write_bytes(content[: content.index(NAME.encode()) + 8])
    return [*files, cut]


@pytest.fixture(scope="module")
def archive() -> Iterator[FakePacs]:
    def moody(event: Any) -> int:
        """Refuses, fails, and takes, in turn."""
        return (0xA700, 0xC000, 0x0000)[len(pacs.offered) % 3]

    with fake_pacs(moody) as pacs:
        yield pacs


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return Authority(tmp_path_factory.mktemp("authority")).issue("node")


@contextmanager
def running(root: Path, toml: str, **environment: object) -> Iterator[ServedNode]:
    """A node whose temporary files are looked through as well, and which stops in order."""
    (root / "tmp").mkdir(parents=True)
    node = ServedNode(root, toml, {**quick_environment(**environment), "TMPDIR": str(root / "tmp")})
    try:
        node.start()
        yield node
        assert node.stop() == 0, node.log[-3000:]
    finally:
        node.clean_up()


def m3node(*arguments: str) -> bytes:
    """Run a command; return all that it says."""
    command = [sys.executable, "-m", "m3node", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout


def fetched(port: int, address: str) -> bytes:
    """What the page answers, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{address}", timeout=60) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


def misbehave(port: int) -> None:
    """Say a patient's name wherever a peer may say something else."""
    uid = "2.25.3.1"
    with associated(port) as association:
        raw_store(association, tiny(named(1)), sop_instance=NAME)
        raw_store(association, tiny(named(1)), sop_instance=uid, sop_class=IDENTIFIER)
        raw_store(association, tiny(named(1)).replace(b"2.25.1\0\0", NAME.encode()[:8]), sop_instance=uid)
        raw_store(association, NAME.encode() * 5, sop_instance=uid)
        raw_store(association, tiny(named(1))[:-20] + NAME.encode(), sop_instance=uid)
    for calling, called in (("TESTER", "ELSEWHERE"), ("CHEAT", "M3NODE")):
        with associated(port, calling=calling, called=called):
            pass
    with reporter(port, calling="CHEAT") as association:
        assert send_report(association, report("2.25.99", [NAME], [IDENTIFIER]), 2) == 0x0000
        send_report(association, report(NAME, ["2.25.1"]))


def look_everywhere(node: ServedNode, port: int, said: Path) -> None:
    """Ask the page and the commands for all that they have, and keep what programs read of it."""
    for address in ("/livez", "/readyz", "/metrics", f"/studies/{IDENTIFIER}", f"/runs/{IDENTIFIER}/overlay.png"):
        (said / f"{address.split('/')[1]}.{len(list(said.iterdir()))}").write_bytes(fetched(port, address))
    # Pages name the patient to whoever may see them; what they leave in the log is looked at.
    study = seeded_uid(1, "study")
    for address in ("/", "/studies", f"/studies/{study}", "/jobs", "/dead", "/destinations", "/studies?q=ZZTOPSECRET"):
        assert fetched(port, address), address
    for words in (("status", "--json"), ("status", "--study", study), ("jobs", "--json")):
        done = node.says(*words)
        (said / f"{len(list(said.iterdir()))}.txt").write_text(done.stdout + done.stderr)


def test_nothing_of_a_patient_is_written_beside_the_objects(tmp_path: Path, archive: FakePacs, shown: Shown) -> None:
    root = tmp_path / "node"
    said = root / "said"
    said.mkdir(parents=True)
    series = sent_series(tmp_path / "sent")
    odd = odd_files(tmp_path / "sent" / "odd values")
    web, tls = free_port(), free_port()
    toml = SETTINGS.format(root=root, port=archive.port, shown=shown, web_port=web, tls_port=tls)
    with running(root, toml) as node:
        for number, port in enumerate((node.port, tls)):
            peer = ("send", str(tmp_path / "sent"), f"M3NODE@127.0.0.1:{port}", "--calling", "PACS")
            over = () if port == node.port else ("--tls", "--ca-file", str(shown.certificate.parent / "ca.pem"))
            (said / f"send.{number}").write_bytes(m3node(*peer, *over))
        misbehave(node.port)
        drop = root / "in"
        for name, files in series.items():
            shutil.copytree(files[0].parent, drop / f"{NAME}-{name}")
        shutil.copytree(odd[0].parent, drop / IDENTIFIER)
        shutil.make_archive(str(tmp_path / NAME), "zip", series["no liver"][0].parent)
        shutil.copy(tmp_path / f"{NAME}.zip", drop)
        box = node.layout.outbox / "archive"
        node.until(lambda: node.answered(f"{seeded_uid(1, 'series')}.g1"))
        node.until(lambda: not list(box.glob("*.json")) and list((box / "sent").iterdir()))
        for what in ("private", "latin", "unicode", "kanji"):
            node.until(partial(node.settled, seeded_uid(what, "series"), 12))
        node.until(lambda: len([*drop.glob("done/*"), *drop.glob("rejected/*")]) == len(series) + 2)
        look_everywhere(node, web, said)
    (root / "run").mkdir()
    (root / "run.log").write_bytes(m3node("run", str(tmp_path / "sent"), "--out", str(root / "run")))
    # The test looks where it means to: the objects do name the patient, and each kind of record is there.
    for folder in (node.layout.results, root / "out", root / "run"):
        objects = list(folder.rglob("*.dcm"))
        assert objects, folder
        assert any(NAME.encode() in path.read_bytes() for path in objects)
    kinds = (
        "index/*.jsonl",
        "manifests/*.json",
        "results/*/findings.json",
        "results/*/run.json",
        "outbox/*/*/*.json",
        "commitments/**/*.json",
        "metrics/*.json",
        "audit/*.xml",
        "database/*.sqlite",
    )
    assert all(list(node.layout.root.glob(kind)) for kind in kinds)
    assert {"acceptor.log", "keeper.log", "web.log"} <= {path.name for path in (root / "logs").iterdir()}
    assert b"m3node_" in b"".join(path.read_bytes() for path in said.glob("metrics.*"))
    for reason in ("mixed-patients", "not-selected", "localizer", "too-few-slices", "undecodable"):
        assert reason in node.log or reason in (root / "run/findings.json").read_text(), reason
    assert spilled(root, identified=[node.layout.audit], inputs=[drop]) == []
    # The trail has the patient ID, as the standard asks, and its owner alone may read it.
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in node.layout.audit.iterdir())
    assert any(IDENTIFIER.encode() in line for line in audited.lines(node.layout.audit))
    assert all(json.loads(line) for line in (root / "logs/keeper.log").read_text().splitlines())


def answered(root: Path, how: str, words: str, **environment: object) -> ServedNode:
    """A node that has answered a series, or failed to, with a detector that tells something."""
    with running(root, QUICK, **{TELLS: f"{how}:{words}"}, **environment) as node:
        files = quick_series(root / "sent", "told", **PATIENT)
        node.send(*files)
        node.until(lambda: node.answered(f"{series_uid('told')}.g1"))
    return node


def test_what_an_error_says_and_a_killed_worker_leaves_tell_nothing_of_a_patient(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "assemble.inside").touch()
    node = answered(tmp_path / "node", "raises", NAME, **{VARIABLE: faults})
    assert not list(faults.iterdir())
    assert "ValueError" in node.log
    assert spilled(node.root, identified=[node.layout.audit]) == []


def test_a_planted_line_of_the_log_is_found(tmp_path: Path) -> None:
    node = answered(tmp_path / "node", "logs", NAME)
    assert {line.partition(" in ")[2] for line in spilled(node.root, identified=[node.layout.audit])} == {
        str(node.log_file)
    }
