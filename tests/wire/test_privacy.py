"""Whatever happens to a patient's series, nothing written beside DICOM objects and pictures names the patient."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, SegmentationStorage

from fake_pacs import FakePacs, fake_pacs
from m3node.evaluation.ct_writer import seeded_uid
from made_series import bare_series, phantom_series
from served import serving

NAME, IDENTIFIER, BIRTH = "ZZTOPSECRET^NAME", "ZZID4711", "19610203"
SECRETS = (b"ZZTOPSEC", b"ZZID4711", b"19610203", b"1961-02-03")
PATIENT = {"PatientName": NAME, "PatientID": IDENTIFIER, "PatientBirthDate": BIRTH}

SETTINGS = """
[listener]
receivers = 1
callers = [{{ae_title = "PACS"}}]
[completeness]
quiet_seconds = 1
[selection]
rules = [{{action = "refuse", description = "^Research"}}]
[watch]
folder = "{folder}"
out = "{out}"
settle_seconds = 0.5
[log]
level = "DEBUG"
[delivery]
retry_first_seconds = 0.2
response_seconds = 5
[[destinations]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
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
    bare = partial(bare_series, **PATIENT)
    series = {
        "lesions": phantom_series(folder / "lesions", 1, **PATIENT),
        "no liver": bare(folder / "no liver", "no liver"),
        "too few": bare(folder / "too few", "too few", slices=3),
        "mixed": bare(folder / "mixed", "mixed"),
        "broken": bare(folder / "broken", "broken"),
        "not selected": bare(folder / "not selected", "not selected", SeriesDescription="Research"),
        "localizer": bare(folder / "localizer", "localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "no seg": bare(folder / "no seg", "no seg", slices=1),
        "private": bare(folder / "private", "private", ImageComments=NAME, StationName=IDENTIFIER),
    }
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


def allowed(path: Path) -> tuple[bytes, ...]:
    """The audit trail has the patient ID, as the standard wants it, and nothing else of the patient."""
    return (IDENTIFIER.encode(),) if path.parent.name == "audit" else ()


def spilled(*folders: Path) -> list[str]:
    """Every file beside DICOM objects and pictures, and every name, that holds something of the patient."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if any(secret in os.fsencode(path.relative_to(folder)) for secret in SECRETS):
                found.append(f"name {path}")
            if path.is_file() and path.suffix not in (".dcm", ".zip", ".png"):
                content, fine = path.read_bytes(), allowed(path)
                found += [f"{secret!r} in {path}" for secret in SECRETS if secret in content and secret not in fine]
    return found


def m3node(*arguments: str) -> bytes:
    """Run a command; return all that it says."""
    command = [sys.executable, "-m", "m3node", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout


def test_nothing_of_a_patient_is_written_beside_the_objects(tmp_path: Path, archive: FakePacs) -> None:
    root = tmp_path / "node"
    series = sent_series(tmp_path / "sent")
    odd = odd_files(tmp_path / "sent" / "odd values")
    with serving(root, SETTINGS.format(folder=root / "in", out=root / "out", port=archive.port)) as node:
        peer = f"M3NODE@127.0.0.1:{node.port}"
        (root / "send.log").write_bytes(m3node("send", str(tmp_path / "sent"), peer, "--calling", "PACS"))
        drop = root / "in"
        for name, files in series.items():
            shutil.copytree(files[0].parent, drop / f"{NAME}-{name}")
        shutil.copytree(odd[0].parent, drop / IDENTIFIER)
        shutil.make_archive(str(tmp_path / NAME), "zip", series["no liver"][0].parent)
        shutil.copy(tmp_path / f"{NAME}.zip", drop)
        box = node.layout.outbox / "archive"
        node.until(lambda: node.answered(f"{seeded_uid(1, 'series')}.g1"))
        node.until(lambda: not list(box.glob("*.json")) and list((box / "sent").iterdir()))
        node.until(lambda: node.settled(seeded_uid("private", "series"), 12))
        node.until(lambda: len([*drop.glob("done/*"), *drop.glob("rejected/*")]) == len(series) + 2)
    (root / "run").mkdir()
    (root / "run.log").write_bytes(m3node("run", str(tmp_path / "sent"), "--out", str(root / "run")))
    # The test looks where it means to: the objects do name the patient, and each kind of record is there.
    for folder in (node.layout.results, root / "out", root / "run"):
        objects = list(folder.rglob("*.dcm"))
        assert objects, folder
        assert all(NAME.encode() in path.read_bytes() for path in objects)
    kinds = ("index/*.jsonl", "manifests/*.json", "results/*/findings.json", "results/*/run.json", "outbox/*/*/*.json")
    assert all(list(node.layout.root.glob(kind)) for kind in kinds)
    for reason in ("mixed-patients", "not-selected", "localizer", "too-few-slices", "undecodable"):
        assert f"[{reason}]" in node.log or reason in (root / "run/findings.json").read_text(), reason
    assert spilled(root) == []
