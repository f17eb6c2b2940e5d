from __future__ import annotations

from pathlib import Path

from serving import serving, small_series

from fake_pacs import fake_pacs
from m3node.delivery.address import Peer
from m3node.delivery.send import find_sendable, send
from m3node.delivery.store_scu import Timeouts
from ports import free_port


def test_results_for_an_archive_that_is_down_wait_and_go_after_the_node_was_restarted(tmp_path: Path) -> None:
    small_series(tmp_path / "series", seed=15)
    archive = Peer("PACS", "127.0.0.1", free_port())
    with serving(tmp_path / "node", ["SCANNER"], [("pacs", archive)]) as node:
        series = find_sendable(tmp_path / "series").items
        assert send(series, node.peer, "SCANNER", Timeouts()).stored == len(series)
        node.until(lambda: len(list(node.layout.outbox.glob("pacs/*.json"))) == 4, "results in the outbox")
    with (
        fake_pacs(port=archive.port) as pacs,
        serving(tmp_path / "node", ["SCANNER"], [("pacs", archive)]) as node,
    ):
        node.until(lambda: len(pacs.kept) == 4, "results in the archive")
        node.until(lambda: len(list(node.layout.outbox.glob("pacs/sent/*.json"))) == 4, "results filed as sent")
        assert len(node.runs()) == 1
