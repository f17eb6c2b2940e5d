"""Start and stop of a process are in the trail, whatever ends it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import audited
from m3node.errors import ConfigError
from m3node.jobs.locks import Holder
from m3node.jobs.node.activity import active
from m3node.jobs.node.activity import audited as recorded
from m3node.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def said(settings: Settings) -> list[tuple[str, str, str]]:
    """Type, outcome and description of each message."""
    return [
        (audited.code(message, "EventTypeCode"), audited.outcome(message), audited.words(message))
        for message in audited.valid(settings.data_dir / "audit")
    ]


def test_a_process_that_ends_in_order_starts_and_stops(settings: Settings) -> None:
    with active(settings, "serve"):
        assert said(settings) == [("Application Start", "0", "")]
    assert said(settings) == [("Application Start", "0", ""), ("Application Stop", "0", "")]


def test_why_it_ended_is_said_and_the_error_goes_on(settings: Settings) -> None:
    def fail(settings: Settings, stop: threading.Event) -> None:
        raise ConfigError("the port is taken")

    with pytest.raises(ConfigError, match="the port is taken"):
        recorded("worker-0", fail)(settings, threading.Event())
    assert said(settings)[1] == ("Application Stop", "8", "the port is taken")


def test_an_unexpected_error_is_named_without_its_words(settings: Settings) -> None:
    """They may quote a data set, and with it a patient."""
    with pytest.raises(ValueError, match="Doe"), active(settings, "serve"):
        raise ValueError("Doe^Jane")
    kind, outcome, words = said(settings)[1]
    assert (kind, outcome) == ("Application Stop", "8")
    assert words.startswith("ValueError at ")
    assert "Doe" not in words


def test_one_that_was_killed_before_is_said_first(settings: Settings) -> None:
    with active(settings, "serve", before=Holder("ct-node", 4711, 0.0)):
        pass
    assert said(settings)[0] == (
        "Application Stop",
        "8",
        "process 4711 on ct-node, since 1970-01-01 00:00:00Z, ended without a word",
    )
