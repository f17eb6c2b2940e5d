"""Monitoring gets its answer in time while the database is away, and costs the page no threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from m3node.errors import ConfigError
from m3node.jobs.node import asking
from m3node.jobs.node.asking import Asking
from m3node.jobs.node.glance import Told
from m3node.layout import DataLayout
from m3node.settings import Settings
from waiting import wait_for
from web_site import opened_site

FINE = Told(trouble="of the ledger's own")


class Ledger:
    """Answers when it is let to; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()

    def __call__(self) -> Told:
        self.asked += 1
        assert self.answers.wait(30)
        return FINE


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger()
    yield made
    made.answers.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(asking, "SHORT_SECONDS", 0.01)


def hanging() -> int:
    return sum(thread.name == "ledger" for thread in threading.enumerate())


def test_a_database_that_hangs_is_told_of_in_time_and_asked_once(tmp_path: Path, ledger: Ledger) -> None:
    ask, before = Asking(Settings(data_dir=tmp_path), ledger), hanging()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(), range(64)))
    assert {answer.overview for answer in answers} == {None}
    assert all("ledger.sqlite cannot be used: it does not answer within 0.2 s" in answer.trouble for answer in answers)
    assert (ledger.asked, hanging() - before) == (1, 1)


def test_only_the_first_who_asks_waits_long(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    wait = asking.wait

    def noted(answers: list[Future[Told]], seconds: float) -> object:
        waited.append(seconds)
        return wait(answers, seconds)

    monkeypatch.setattr(asking, "wait", noted)
    ask = Asking(Settings(data_dir=tmp_path), ledger)
    for _ in range(3):
        ask()
    ledger.answers.set()
    wait_for(lambda: ask() is FINE)
    waited[3:] = []
    ask()
    assert waited == [asking.PATIENCE_SECONDS, *2 * [asking.SHORT_SECONDS], asking.PATIENCE_SECONDS]


def test_what_it_says_is_taken_when_it_answers_again(tmp_path: Path, ledger: Ledger) -> None:
    ask = Asking(Settings(data_dir=tmp_path), ledger)
    assert ask() is not FINE
    ledger.answers.set()
    wait_for(lambda: ask() is FINE)


def test_who_waits_for_an_answer_gets_it_and_an_error_as_well(tmp_path: Path) -> None:
    def refuse() -> Told:
        raise ConfigError("no node has run")

    ask = Asking(Settings(data_dir=tmp_path), refuse)
    for _ in range(2):
        with pytest.raises(ConfigError, match="no node has run"):
            ask()


@contextmanager
def silent_server() -> Iterator[int]:
    """A server that takes connections and never says a word, as a database does whose machine is frozen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_page_answers_probes_at_once_while_its_database_is_frozen(tmp_path: Path) -> None:
    DataLayout(tmp_path).create()
    with silent_server() as port:
        settings = Settings(data_dir=tmp_path, database_url=f"postgresql://m3:secret@127.0.0.1:{port}/m3")
        with opened_site(settings) as (_, client), ThreadPoolExecutor(8) as pool:
            before = hanging()
            answers = list(pool.map(client.get, ["/readyz", "/metrics", "/studies", "/jobs"] * 8))
            assert hanging() - before <= 1
    said = {answer.request.url.path: answer for answer in answers}
    assert said["/readyz"].status_code == 503
    checks = {item["name"]: item for item in said["/readyz"].json()["checks"]}
    assert checks["database"]["state"] == "failed"
    assert "127.0.0.1" in checks["database"]["message"]
    assert "secret" not in checks["database"]["message"]
    assert "\nm3node_database_up 0.0\n" in said["/metrics"].text
    assert "\nm3node_role_up{" in said["/metrics"].text
    for page in ("/studies", "/jobs"):
        assert said[page].status_code == 503
        assert "it does not answer within" in said[page].text
