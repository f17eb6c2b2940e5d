"""After a crash or a restart the keeper goes on where the files end."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from keeping import QUIET, Node, liver_seg
from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.keeper.index import Index
from m3node.intake.keeper.keeper import TROUBLE_SECONDS
from m3node.intake.keeper.register import Register
from m3node.jobs.answer.rejections import record_rejection
from m3node.settings import EligibilitySettings


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


def test_a_disk_that_refuses_in_the_middle_of_what_a_crash_left_loses_no_slice(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.store(*node.series())
    shutil.rmtree(node.layout.associations)
    node.layout.associations.mkdir()
    append, room = Index.append, iter(range(5))

    def full_soon(index: Index, series: str, facts: Iterable[dict[str, Any]], *, durable: bool = False) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(index, series, facts, durable=durable)

    with monkeypatch.context() as disk:
        disk.setattr(Index, "append", full_soon)
        node.restart()
    node.wait(TROUBLE_SECONDS)
    node.wait(QUIET)
    assert [len(manifest.slices) for manifest in node.manifests] == [12]
    assert node.recorded == []


def test_killed_while_it_takes_in_a_seg_the_keeper_tells_its_series_of_it_after_the_restart(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    files = node.series()
    node.store(*files, liver_seg(files))
    with monkeypatch.context() as dying:
        dying.setattr(Register, "_announce_seg", killed)
        with pytest.raises(KeyboardInterrupt):
            node.keeper.step()
    node.restart()
    node.wait(QUIET)
    assert [len(manifest.liver_segs) for manifest in node.manifests] == [1]


def test_an_index_lost_after_the_answer_makes_nothing_new(node: Node) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    for path in node.layout.index.iterdir():
        path.unlink()
    node.restart()
    node.wait(QUIET)
    assert len(node.manifests) == 1


@pytest.mark.parametrize("settings", ["the same", "others"])
def test_a_reason_that_the_index_has_lost_is_not_taken_for_the_answer_to_what_is_fit_now(
    node: Node, settings: str
) -> None:
    files = node.series()
    few = files[:5] if settings == "others" else (*files[:5], *files[6:])
    node.store(*few)
    node.wait(QUIET)
    ((key, generation, digest, rejection),) = node.recorded
    taken = record_rejection(node.layout, key, generation, digest, rejection)
    (node.layout.index / f"{seeded_uid(1, 'series')}.jsonl").unlink()
    if settings == "others":
        node.settings = node.settings.model_copy(update={"eligibility": EligibilitySettings(min_slices=5)})
    else:
        node.store(files[5])
    node.restart()
    node.wait(QUIET)
    (manifest,) = node.manifests
    assert taken.name == f"{manifest.stack.label}.g1"
    assert (manifest.generation, manifest.supersedes) == (2, "")
    assert [reason for _, reason in node.reasons] == [rejection.reason], "it stays recorded, once"
