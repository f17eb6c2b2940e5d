"""When the keeper takes a series for complete: after a quiet period, and after the SEG that it waits for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keeping import QUIET, Node, liver_seg
from m3node.evaluation.ct_writer import seeded_uid


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_series_has_a_manifest_after_the_quiet_period_and_not_before(node: Node) -> None:
    node.store(*node.series())
    node.wait(QUIET - 0.1)
    assert node.manifests == []
    node.wait(0.2)
    (manifest,) = node.manifests
    assert (manifest.generation, manifest.supersedes, len(manifest.slices)) == (1, "", 12)
    assert manifest.senders == ("PACS",)
    assert (Path(manifest.root) / manifest.instances[0].path).is_file()
    assert node.keeper.waiting == frozenset()


def test_each_arrival_starts_the_quiet_period_again(node: Node) -> None:
    files = node.series()
    for file in files:
        node.store(file)
        node.wait(QUIET - 1)
        assert node.manifests == []
    node.wait(1)
    assert len(node.manifests[0].slices) == 12


def test_a_live_association_holds_the_series_open_that_it_stored_last(node: Node) -> None:
    first, second = node.series(1), node.series(2)
    node.store(*first, *second, close=False)
    node.wait(QUIET + 1)
    assert [manifest.stack.series_instance_uid for manifest in node.manifests] == [seeded_uid(1, "series")]
    node.wait(10 * QUIET)
    assert len(node.manifests) == 1
    node.close()
    node.wait(QUIET - 0.1)
    assert len(node.manifests) == 1
    node.wait(0.2)
    assert len(node.manifests) == 2


def test_the_association_of_a_killed_receiver_holds_nothing_open(node: Node) -> None:
    node.store(*node.series(), close=False)
    lease = node.leases["PACS"].path
    lines = lease.read_text().splitlines()
    first = json.loads(lines[0])
    first["started"] = "1"  # the process id belongs to another process now
    lease.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    node.wait(QUIET + 1)
    assert len(node.manifests) == 1
    assert list(node.layout.associations.iterdir()) == []


def test_leases_are_removed_once_they_are_closed_and_read(node: Node) -> None:
    node.store(*node.series(1), close=False)
    node.store(*node.series(2), sender="HASTY")
    node.wait(0)
    assert [path.stem for path in node.layout.associations.iterdir()] == [node.leases["PACS"].id]


def test_a_sender_may_have_its_own_quiet_period(node: Node) -> None:
    node.store(*node.series(1), sender="HASTY")
    node.store(*node.series(2), sender="PACS")
    node.wait(2.5)
    assert [manifest.senders for manifest in node.manifests] == [("HASTY",)]


def test_a_sender_may_be_waited_for_until_its_seg_arrives(node: Node) -> None:
    files = node.series()
    node.store(*files, sender="CONTOURS")
    node.wait(QUIET + 30)
    assert node.manifests == []
    node.store(liver_seg(files), sender="CONTOURS")
    node.wait(0)
    (manifest,) = node.manifests
    assert [seg.sop_instance_uid for seg in manifest.liver_segs] == [seeded_uid("seg")]


def test_where_no_seg_can_come_none_is_waited_for(node: Node) -> None:
    node.store(liver_seg(node.series()), sender="CONTOURS")
    node.wait(QUIET)
    assert node.keeper.waiting == frozenset()


def test_a_seg_is_not_waited_for_longer_than_set(node: Node) -> None:
    node.store(*node.series(), sender="CONTOURS")
    node.wait(QUIET + 60)
    assert node.manifests[0].liver_segs == ()
