"""Results outlive their node: what an archive could not take goes after the restart."""

from __future__ import annotations

from pathlib import Path

from fake_pacs import fake_pacs
from made_series import phantom_series
from ports import free_port
from served import serving

SETTINGS = """
[listener]
receivers = 1
callers = [{{ae_title = "PACS"}}]
[completeness]
quiet_seconds = 1
[delivery]
retry_first_seconds = 0.5
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
"""


def test_results_for_an_archive_that_is_down_wait_and_go_after_the_node_was_restarted(tmp_path: Path) -> None:
    series = phantom_series(tmp_path / "series", 15)
    port = free_port()
    with serving(tmp_path / "node", SETTINGS.format(port=port)) as node:
        node.send(*series)
        node.until(lambda: len(list(node.layout.outbox.glob("pacs/*.json"))) == 4)
    with fake_pacs(port=port) as pacs, serving(tmp_path / "node", SETTINGS.format(port=port)) as node:
        node.until(lambda: len(list(node.layout.outbox.glob("pacs/sent/*.json"))) == 4)
        assert len(pacs.kept) == 4
        assert sorted(pacs.offered) == sorted(pacs.kept)
        assert len(list(node.layout.results.iterdir())) == 1
