"""The running node on a disk that is full, that is nearly full, and from which it removes what it needs no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from receiving import rejection

from fake_pacs import FakePacs, fake_pacs
from m3node.disk import free_mb
from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.keeper.index import Index
from made_series import bare_series, phantom_series
from served import ServedNode, serving
from small_disk import SmallDisk, small_disk

LISTENER = """
[listener]
receivers = 1
callers = [{ae_title = "PACS"}]
[completeness]
quiet_seconds = 1
"""


def one(seed: object) -> str:
    return seeded_uid(seed, "series")


def in_spool(node: ServedNode, series: str) -> int:
    return len(list(node.layout.spool.glob(f"*/{series}/*.dcm")))


def restarts(node: ServedNode) -> list[str]:
    return re.findall(r".*is started again.*", node.log)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "data", 64) as disk:
        yield disk


def test_a_disk_that_is_full_loses_nothing_that_was_acknowledged_and_the_node_goes_on_by_itself(
    tmp_path: Path, disk: SmallDisk
) -> None:
    before, during = bare_series(tmp_path / "1", 1), bare_series(tmp_path / "2", 2)
    with serving(tmp_path, LISTENER) as node:
        association = node.associate()
        assert association.is_established
        for file in (*before, *during[:6]):
            assert association.send_c_store(file).Status == 0x0000
        statuses = []
        for file in during[6:]:
            disk.fill()  # each time: a node that ends something gives room back, and may take an instance in then
            statuses.append(association.send_c_store(file).Status)
        assert set(statuses) <= {0x0000, 0xA700}
        assert 0xA700 in statuses
        assert in_spool(node, one(2)) == 6 + statuses.count(0x0000)
        disk.fill()
        association.release()
        assert rejection(node.port, calling="PACS") in [(2, 3, 1), (2, 3, 2)]
        node.until(lambda: "the disk refuses" in node.log or "waits: " in node.log)
        disk.empty()
        node.send(*during)
        # Half of the second may have been judged by itself, when the rest was long in coming: that is a generation.
        node.until(
            lambda: (
                len(node.manifests) == 2 and all(node.answered(Path(each.file_name).stem) for each in node.manifests)
            )
        )
        assert {each.stack.series_instance_uid: len(each.slices) for each in node.manifests} == {one(1): 12, one(2): 12}
        assert list((node.layout.spool / ".incoming").iterdir()) == []
        assert restarts(node) == []


def test_below_the_mark_the_node_takes_nothing_in_and_ends_what_it_has(tmp_path: Path, disk: SmallDisk) -> None:
    first, second = bare_series(tmp_path / "1", 1), bare_series(tmp_path / "2", 2)
    settings = f"{LISTENER}[disk]\nwarn_free_mb = 20\nrefuse_free_mb = 16\n"
    with serving(tmp_path, settings) as node:
        association = node.associate()
        for file in first:
            assert association.send_c_store(file).Status == 0x0000
        ballast = disk.folder / "ballast"
        ballast.write_bytes(bytes(int((free_mb(disk.folder) - 10) * 1e6)))
        node.until(lambda: "disk.refuse_free_mb" in node.log)
        # That was the acceptor; a receiver's own measurement counts for a second.
        node.until(lambda: association.send_c_store(first[0]).Status == 0xA700)
        assert association.send_c_store(second[0]).Status == 0xA700
        assert in_spool(node, one(2)) == 0
        association.release()
        assert rejection(node.port, calling="PACS") == (2, 3, 2)
        node.until(lambda: node.answered(f"{one(1)}.g1"))
        ballast.unlink()
        node.until(lambda: "there is room on the disk again" in node.log)
        node.send(*second)
        node.until(lambda: node.answered(f"{one(2)}.g1"))
        assert node.log.count("(disk.refuse_free_mb): associations are rejected") == 1
        assert restarts(node) == []


def test_received_pixels_go_when_their_results_have_arrived_and_what_comes_again_makes_no_job(tmp_path: Path) -> None:
    files = phantom_series(tmp_path / "1", 1)
    run = f"{one(1)}.g1"
    with fake_pacs() as pacs:
        settings = f"{LISTENER}[retention]\nreceived_hours = 0.0005\n{destination(pacs)}"
        with serving(tmp_path, settings) as node:
            node.send(*files[:-1])
            node.until(lambda: len(pacs.kept) == 4)
            node.until(lambda: in_spool(node, one(1)) == 0)
            offered = len(pacs.offered)
            node.send(*files[:-1])
            node.until(lambda: in_spool(node, one(1)) == 0)
            node.send(files[-1])
            # The folder is there before what it is for.
            node.until(lambda: list(node.layout.results.glob(f"{one(1)}.g0.*/findings.json")))
            (refused,) = node.layout.results.glob(f"{one(1)}.g0.*")
            assert node.findings(refused.name)["rejection"]["reason"] == "earlier-purged"
            assert [path.stem for path in node.layout.manifests.iterdir()] == [run]
            assert (len(pacs.offered), len(pacs.kept)) == (offered, 4)
            index = Index(node.layout.index).load(one(1))
            assert len(index.purged) == len(files) - 1
            assert (node.layout.results / run / "run.json").exists()


def destination(pacs: FakePacs) -> str:
    return f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs.port}\n'
