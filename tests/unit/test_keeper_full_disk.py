"""On a disk that is really full the keeper waits, and afterwards has lost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keeping import QUIET, Node
from m3node.intake.keeper.keeper import RETRY_SECONDS, TROUBLE_SECONDS
from small_disk import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 6) as disk:
        yield disk


def wait(node: Node, times: int) -> None:
    for _ in range(times):
        node.wait(QUIET)
        node.wait(RETRY_SECONDS)


@pytest.mark.parametrize("case", ["space returns", "killed meanwhile", "old pixels go"])
def test_the_keeper_waits_for_room_and_then_answers_all_that_arrived(
    disk: SmallDisk, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(disk.folder)
    arrived, quiet, older = node.series(1), node.series(2), node.series(3, slices=60)
    node.store(*older)
    wait(node, 1)
    node.store(*quiet)
    node.keeper.step()  # in the index, and not answered
    node.store(*arrived, urgent=arrived, close=False)  # on disk, and not in the index
    disk.fill()
    wait(node, 3)
    assert [node.manifests_of(seed) for seed in (1, 2, 3)] == [0, 0, 1]
    assert len(list(node.layout.associations.iterdir())) == 1, "a lease stays until it was read to its end"
    if case == "killed meanwhile":
        node.restart()
        wait(node, 3)
    if case == "old pixels go":
        node.purge(3)
        assert node.files(3) == []
    else:
        disk.empty()
    node.close()
    node.wait(TROUBLE_SECONDS)
    wait(node, 3)
    assert [node.manifests_of(seed) for seed in (1, 2, 3)] == [1, 1, 1]
    assert sorted(len(manifest.slices) for manifest in node.manifests) == [12, 12, 60]
    assert sorted(manifest.priority for manifest in node.manifests) == ["routine", "routine", "stat"]
    assert (node.recorded, node.keeper.waiting) == ([], frozenset())
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    lives = 2 if case == "killed meanwhile" else 1
    assert sum(message.startswith("the disk refuses") for message in errors) == lives
    assert len(errors) <= 3 * lives, "trouble is told once, not at every try"
    assert "the disk takes notes again" in caplog.text
