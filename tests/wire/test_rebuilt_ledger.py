"""The databases are lost and made again from the files: ``status`` says the same, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fake_pacs import fake_pacs
from quick_node import archive, made
from quick_series import quick_series, series_uid
from served import ServedNode


def said(node: ServedNode, *words: str) -> dict[str, Any]:
    """What a command says, but for the times of asking and of the processes."""
    tree: dict[str, Any] = json.loads(node.says(*words, "--json").stdout)
    for name in ("at", "roles", "disk", "workers", "checks"):
        tree.pop(name, None)
    return tree


def test_status_says_the_same_after_the_databases_were_lost_and_nothing_is_done_again(tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    with fake_pacs() as pacs, made(tmp_path, archive(pacs), M3NODE_TEST_STEPS=steps) as node:
        node.start()
        # Two generations of a series, and one that is too short.
        files = quick_series(tmp_path / "sent", "first")
        node.send(*files[:11])
        node.until(lambda: node.answered(f"{series_uid('first')}.g1"))
        node.send(files[11])
        node.send(*quick_series(tmp_path / "short", "short", 1)[:3])
        node.until(lambda: node.answered(f"{series_uid('first')}.g2"))
        node.until(lambda: node.settled(series_uid("short"), 3))
        node.until(lambda: not list((node.layout.outbox / "archive").glob("*.json")))
        node.until(lambda: said(node, "status")["runs"] == {"done": 2, "rejected": 1})
        node.until(lambda: said(node, "status")["series"] == {"answered": 2})
        node.until(lambda: set(said(node, "status")["destinations"][0]["states"]) <= {"sent", "cancelled"})
        (study,) = {manifest.study_instance_uid for manifest in node.manifests}
        before = said(node, "status"), said(node, "status", "--study", study), said(node, "jobs")
        done, offered = steps.read_text(), list(pacs.offered)
        assert node.stop() == 0

        shutil.rmtree(node.layout.database)
        node.start()
        node.until(lambda: said(node, "status") == before[0])  # it comes a kind of file after the other
        assert (said(node, "status"), said(node, "status", "--study", study), said(node, "jobs")) == before
        assert node.stop() == 0
        assert (steps.read_text(), pacs.offered) == (done, offered)
