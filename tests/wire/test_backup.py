"""A node is backed up and restored by the document's own lines: it says the same as before, and does nothing twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from fake_pacs import fake_pacs
from m3node.health.exposition import exposition
from m3node.layout import DataLayout
from m3node.settings import Settings
from quick_node import archive, made
from quick_series import quick_series, series_uid
from served import ServedNode

INSTANCES = "m3node_instances_received_total"
DEPLOYMENT = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"


def said(node: ServedNode, *words: str) -> dict[str, Any]:
    """What a command says, but for the times of asking and of the processes, and what the checks say of both."""
    tree: dict[str, Any] = json.loads(node.says(*words, "--json").stdout)
    return {name: value for name, value in tree.items() if name not in {"at", "roles", "disk", "workers", "checks"}}


def trail_of(layout: DataLayout) -> bytes:
    """What is in the audit trail."""
    return b"".join(path.read_bytes() for path in sorted(layout.audit.glob("*.xml")))


def counted(layout: DataLayout, name: str) -> float:
    """The sum of a counter over all processes and values of its labels."""
    text = exposition(Settings(data_dir=layout.root), time.time()).decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + "{"))


def lines(mark: str, data: Path, copy: Path) -> str:
    """The document's commands that begin with a comment, with our paths in them."""
    (found,) = re.findall(rf"```sh\n# {mark}\n(.*?)```", DEPLOYMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    # The account of the node is not on every machine that runs the tests.
    found = found.replace("install -d -m 0700 -o m3node -g m3node", "install -d -m 0700")
    for theirs, ours in (("/var/lib/m3node", data), ("/backup/m3node.tar", copy)):
        assert theirs in found
        found = found.replace(theirs, str(ours))
    return "set -e\n" + "\n".join(line for line in found.splitlines() if not line.startswith("systemctl"))


def test_a_restored_node_says_the_same_and_does_nothing_twice(tmp_path: Path) -> None:
    steps, copy = tmp_path / "steps", tmp_path / "copy.tar"
    with fake_pacs() as pacs, made(tmp_path, archive(pacs), M3NODE_TEST_STEPS=steps) as node:
        node.start()
        node.send(*quick_series(tmp_path / "sent", "kept"))
        node.until(lambda: node.answered(f"{series_uid('kept')}.g1"))
        node.until(lambda: said(node, "status")["runs"] == {"done": 1})
        node.until(lambda: said(node, "status")["series"] == {"answered": 1})
        node.until(lambda: set(said(node, "status")["destinations"][0]["states"]) == {"sent"})
        (study,) = {manifest.study_instance_uid for manifest in node.manifests}
        before = said(node, "status"), said(node, "status", "--study", study), said(node, "jobs")
        done, offered = steps.read_text(), list(pacs.offered)
        assert node.stop() == 0
        trail, received = trail_of(node.layout), counted(node.layout, INSTANCES)
        assert trail
        assert received

        mode = node.layout.root.stat().st_mode
        subprocess.run(["sh", "-c", lines("Back-up", node.layout.root, copy)], check=True)
        shutil.rmtree(node.layout.root)
        subprocess.run(["sh", "-c", lines("Restore", node.layout.root, copy)], check=True)
        assert not node.layout.locks.exists()
        assert not node.layout.database.exists()
        assert node.layout.root.stat().st_mode == mode
        assert (node.layout.audit.stat().st_mode & 0o777, trail_of(node.layout)) == (0o700, trail)

        node.start()
        node.until(lambda: said(node, "status") == before[0])  # it comes a kind of file after the other
        assert (said(node, "status"), said(node, "status", "--study", study), said(node, "jobs")) == before
        assert node.stop() == 0
        assert (steps.read_text(), pacs.offered) == (done, offered)
        # The trail goes on behind what it had, and counters do not begin anew.
        assert trail_of(node.layout).startswith(trail)
        assert len(trail_of(node.layout)) > len(trail)
        assert counted(node.layout, INSTANCES) == received


def test_the_document_says_of_every_folder_what_is_lost_without_it() -> None:
    section = DEPLOYMENT.read_text(encoding="utf-8").partition("\n## Back-up\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)/`", "".join(line for line in section.splitlines() if line.startswith("| `"))))
    layout = DataLayout(Path("data"))
    folders = {name for name in dir(DataLayout) if isinstance(getattr(layout, name), Path)} - {"root"}
    assert named == {getattr(layout, name).name for name in folders}
