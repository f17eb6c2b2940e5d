"""Results outlive their node: what an archive could not take goes after the restart."""

from __future__ import annotations

from pathlib import Path

from fake_pacs import fake_pacs
from ports import free_port
from quick_node import made
from quick_series import quick_series

DELIVERIES = """
[delivery]
retry_first_seconds = 0.5
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
"""


def test_results_for_an_archive_that_is_down_wait_and_go_after_the_node_was_restarted(tmp_path: Path) -> None:
    port = free_port()
    with made(tmp_path / "node", DELIVERIES.format(port=port)) as node:
        node.start()
        node.send(*quick_series(tmp_path / "series", "restart"))
        node.until(lambda: len(list(node.layout.outbox.glob("pacs/*.json"))) == 4)
        assert node.stop() == 0
        with fake_pacs(port=port) as pacs:
            node.start()
            node.until(lambda: len(list(node.layout.outbox.glob("pacs/sent/*.json"))) == 4)
            assert node.stop() == 0
            assert len(pacs.kept) == 4
            assert sorted(pacs.offered) == sorted(pacs.kept)
        assert len(list(node.layout.results.iterdir())) == 1
