"""A page that waits for its port is told of: whoever asks its address may see another node's meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ledgers import opened_ledger
from m3node.health.checks import check
from m3node.health.roles import SILENT_SECONDS
from m3node.health.state import Check
from m3node.jobs.locks import hold, holder
from m3node.jobs.node.ready import WEB
from m3node.layout import DataLayout
from m3node.settings import Settings
from m3node.web.role import web


def pages(settings: Settings, later: float) -> list[Check]:
    return [item for item in check(settings, time.time() + later) if item.name == "page"]


def test_a_page_without_a_port_is_a_warning_once_it_lasts(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with opened_ledger(settings), hold(DataLayout(tmp_path), WEB) as tenure:
        assert pages(settings, SILENT_SECONDS - 5) == []
        (told,) = pages(settings, SILENT_SECONDS + 5)
        assert told.state == "warning"
        assert "has no port" in told.message
        assert "set web.port" in told.action
        tenure.listens_on([11180])
        assert pages(settings, SILENT_SECONDS + 5) == []
    assert pages(settings, SILENT_SECONDS + 5) == []  # nobody is the page: that is another matter


def test_the_page_says_its_port_when_it_has_it(tmp_path: Path) -> None:
    layout, stop, ports = DataLayout(tmp_path), threading.Event(), []

    def told(port: object) -> None:
        found = holder(layout, WEB)
        assert found is not None
        ports.append((port, found.ports))
        stop.set()

    settings = Settings(data_dir=tmp_path, web={"port": 0})
    with opened_ledger(settings):
        web(settings, stop, told)
    ((port, known),) = ports
    assert known == (port,)
