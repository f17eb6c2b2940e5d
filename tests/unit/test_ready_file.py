"""What a node says of its ports once it listens, and that they stay the same for processes that start again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m3node.intake.receive.ports import Ports
from m3node.jobs.locks import hold
from m3node.jobs.node.ready import Ready
from m3node.layout import DataLayout
from m3node.settings import ListenerSettings, ListenerTls, Settings


@pytest.mark.parametrize(("plain", "tls"), [(11112, 2762), (None, 2762), (11112, None)])
def test_the_ready_file_has_both_ports_and_null_for_one_that_is_not_there(
    tmp_path: Path, plain: int | None, tls: int | None
) -> None:
    file = tmp_path / "ready"
    before = Settings(data_dir=tmp_path, listener=ListenerSettings(port=0, tls=ListenerTls(port=0)))
    with hold(DataLayout(tmp_path), "listen") as listening:
        ready = Ready(before, file, listening)
        assert ready("keeper", None) is None
        assert not file.exists()
        after = ready("acceptor", Ports(plain, tls))
    said = json.loads(file.read_text())
    assert (said["port"], said["tls_port"], said["ae_title"]) == (plain, tls, "M3NODE")
    assert after is not None
    assert (after.listener.port, after.listener.tls.port) == (plain or 0, tls or 0)


@pytest.mark.parametrize("first", ["web", "acceptor"])
def test_the_pages_port_stands_beside_them_whichever_is_there_first(tmp_path: Path, first: str) -> None:
    file = tmp_path / "ready"
    before = Settings(data_dir=tmp_path, web={"port": 0}, listener=ListenerSettings(port=0))
    reports: dict[str, object] = {"web": 11180, "acceptor": Ports(11112, None)}
    with hold(DataLayout(tmp_path), "listen") as listening:
        ready = Ready(before, file, listening)
        ready(first, reports.pop(first))
        # The file says that the node listens: before that there is none.
        assert file.exists() == (first == "acceptor")
        ((second, report),) = reports.items()
        after = ready(second, report)
    said = json.loads(file.read_text())
    assert (said["port"], said["web_port"]) == (11112, 11180)
    assert after is not None
    assert (after.listener.port, after.web.port) == (11112, 11180)
