"""The page as a role of a real node: found by its port, started again when it dies, and no second one beside it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from m3node.jobs.locks import holder
from ports import free_port
from quick_node import ended, made
from served import ServedNode
from waiting import wait_for


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ServedNode]:
    with made(tmp_path, "[web]\nport = 0\n") as node:
        yield node


def web_port(node: ServedNode) -> int:
    """The port of the page, once it is served."""
    node.until(lambda: "web_port" in json.loads((node.root / "ready").read_text()))
    return int(json.loads((node.root / "ready").read_text())["web_port"])


def page(port: int, path: str = "/livez") -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def test_a_page_that_dies_comes_back_at_its_port_and_the_node_goes_on(node: ServedNode) -> None:
    node.start()
    port = web_port(node)
    first = holder(node.layout, "web")
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)

    def is_back() -> bool:
        now = holder(node.layout, "web")
        try:
            return now is not None and now.pid != first.pid and page(port) == "ok\n"
        except OSError:
            return False

    node.until(is_back)
    assert node.listens
    roles = json.loads(node.says("status", "--json").stdout)["roles"]
    assert [role["running"] for role in roles if role["name"] == "web"] == [True]
    refused = node.says("web")
    assert refused.returncode == 2
    assert "web of the data folder" in refused.stderr
    assert node.stop() == 0
    assert holder(node.layout, "web") is None


def test_the_page_runs_apart_from_the_node_and_ends_in_order(tmp_path: Path) -> None:
    port = free_port()
    with made(tmp_path, f"[web]\nport = {port}\n") as node:
        ready = tmp_path / "page"
        process = node.begin("web", "--ready-file", str(ready))
        wait_for(ready.exists)
        assert json.loads(ready.read_text())["web_port"] == port
        # No node is there: the page says so, and lives.
        assert "nobody listens" in page(port, "/")
        assert ended(process) == 0
        assert not ready.exists()
