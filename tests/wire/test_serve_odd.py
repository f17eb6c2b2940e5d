"""Whatever is sent or dropped, the node lives on and gives a reason."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3node.evaluation.ct_writer import seeded_uid
from made_series import bare_series
from served import ServedNode, serving

SETTINGS = """
[listener]
receivers = 1
callers = [{{ae_title = "PACS"}}]
[completeness]
quiet_seconds = 1
[watch]
folder = "{folder}"
out = "{out}"
settle_seconds = 0.5
"""

NAMES = ("odd_dicom", "ct_head_tilted", "ct_enhanced")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    root = tmp_path_factory.mktemp("node")
    with serving(root, SETTINGS.format(folder=root / "in", out=root / "out")) as node:
        node.until((root / "in" / "done").is_dir)  # the watch has begun, which listening does not tell
        yield node
    assert "it is started again" not in node.log


def drop(node: ServedNode, source: Path, name: str) -> None:
    """Copy something into the watched folder under a name that must not come back."""
    target = node.root / "in" / name
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def moved(node: ServedNode, where: str) -> set[Path]:
    return set((node.root / "in" / where).iterdir())


def dropped_and_moved(node: ServedNode, source: Path, name: str, where: str) -> Path:
    """Drop, and return the job's folder once it is there."""
    before = moved(node, where)
    drop(node, source, name)
    node.until(lambda: moved(node, where) - before)
    (job,) = moved(node, where) - before
    return job


@pytest.mark.parametrize("name", NAMES)
def test_every_odd_file_sent_is_refused_with_a_status_or_answered_with_a_reason(
    node: ServedNode, test_data: Path, name: str
) -> None:
    peer = f"M3NODE@127.0.0.1:{node.port}"
    command = [sys.executable, "-m", "m3node", "send", str(test_data / name), peer, "--calling", "PACS", "--json"]
    sent = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    refused, skipped = sent["failed"], sent["skipped"]
    files = [path for path in (test_data / name).rglob("*") if path.is_file()]
    assert sent["stored"] > 0
    assert sent["stored"] + len(refused) + len(skipped) == len(files)
    # Without a status, the peer's refusal is that of the presentation context.
    assert all(item["status"] or "does not accept" in item["message"] for item in refused), refused
    spooled = {path.parent.name for path in node.layout.spool.rglob("*.dcm")}
    for series in spooled:
        kept = len(list(node.layout.spool.glob(f"*/{series}/*.dcm")))
        node.until(lambda series=series, kept=kept: node.settled(series, kept))
        records = list(node.layout.results.glob(f"{series}*/findings.json"))
        assert records, f"series {series} has no answer"
        for record in records:
            findings = json.loads(record.read_text())
            assert findings["outcome"] == "rejected"
            assert findings["rejection"]["message"]
            assert series in node.log


@pytest.mark.parametrize("name", NAMES)
def test_every_odd_folder_dropped_is_set_aside_with_its_reasons(node: ServedNode, test_data: Path, name: str) -> None:
    job = dropped_and_moved(node, test_data / name, f"SECRET^NAME {name}", "rejected")
    reasons = json.loads((job / "reason.json").read_text())["reasons"]
    assert reasons
    assert all(reason["message"] for reason in reasons)
    kept = sorted(path.name for path in (job / "input").rglob("*") if path.is_file())
    assert kept == sorted(path.name for path in (test_data / name).rglob("*") if path.is_file())
    assert "SECRET" not in job.name + (job / "reason.txt").read_text() + node.log


@pytest.mark.parametrize("form", ["folder", "zip", "loose files"])
def test_a_series_dropped_in_any_form_is_answered_in_the_out_folder(
    node: ServedNode, tmp_path: Path, form: str
) -> None:
    files = bare_series(tmp_path / "series", ("dropped", form))
    before = moved(node, "done")
    if form == "zip":
        drop(node, Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "series")), "study.zip")
    elif form == "folder":
        drop(node, tmp_path / "series", "study")
    else:
        for file in files:
            drop(node, file, file.name)
    node.until(lambda: moved(node, "done") - before)
    (job,) = moved(node, "done") - before
    uid = seeded_uid(("dropped", form), "series")
    findings = json.loads((node.root / "out" / job.name / uid / "findings.json").read_text())
    assert findings["outcome"] == "no-liver"
    assert (node.root / "out" / job.name / uid / "report.sr.dcm").is_file()
