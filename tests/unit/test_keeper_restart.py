"""After a crash or a restart the keeper goes on where the files end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from keeping import QUIET, Node

from m3node.evaluation.ct_writer import seeded_uid


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("settled", [True, False], ids=["after the answer", "between answer and memory of it"])
def test_a_restart_makes_nothing_new(node: Node, settled: bool) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    before = node.manifests
    if not settled:
        index = node.layout.index / f"{seeded_uid(1, 'series')}.jsonl"
        index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))
    node.restart()
    assert bool(node.keeper.waiting) is not settled
    node.wait(QUIET)
    assert node.manifests == before


@pytest.mark.parametrize("index", ["kept", "torn", "lost"])
def test_after_a_crash_the_spool_is_enough(node: Node, index: str) -> None:
    node.store(*node.series())
    node.wait(1)
    path = node.layout.index / f"{seeded_uid(1, 'series')}.jsonl"
    if index == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    if index == "lost":
        path.unlink()
    shutil.rmtree(node.layout.associations)
    node.layout.associations.mkdir()
    node.restart()
    node.wait(QUIET - 0.1)
    assert node.manifests == [], "senders have their time again after a restart"
    node.wait(0.2)
    assert len(node.manifests[0].slices) == 12


def test_an_index_lost_after_the_answer_makes_nothing_new(node: Node) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    for path in node.layout.index.iterdir():
        path.unlink()
    node.restart()
    node.wait(QUIET)
    assert len(node.manifests) == 1
