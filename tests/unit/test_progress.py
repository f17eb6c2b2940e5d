"""Progress is a bar on a terminal, plain lines elsewhere, and nothing where a machine reads."""

from __future__ import annotations

import io
import sys
from importlib.metadata import version

import pytest
from rich.text import Text

from m3node.cli.main import main
from m3node.cli.progress import show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal; not in a fixture, since pytest puts its own in place after those."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def two_stages(*, quiet: bool = False) -> None:
    with show_progress(quiet=quiet) as report:
        for stage, total in (("reading", 2), ("looking", 3)):
            for done in range(total + 1):
                report(stage, done, total)


def test_a_terminal_shows_a_bar_for_each_stage_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    two_stages()
    drawn = terminal.getvalue()
    assert "\x1b[" in drawn  # the cursor is moved: a bar and no list of lines
    last = Text.from_ansi(drawn).plain.splitlines()[-2:]
    assert [line.split()[0] for line in last] == ["reading", "looking"]
    assert [line.split()[2] for line in last] == ["2/2", "3/3"]


def test_the_next_stack_begins_its_stages_with_bars_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with show_progress() as report:
        for _ in range(2):
            report("reading", 0, 2)
            report("reading", 2, 2)
    last = Text.from_ansi(terminal.getvalue()).plain.splitlines()[-2:]
    assert [line.split()[2] for line in last] == ["2/2", "2/2"]


def test_without_a_terminal_a_line_begins_and_a_line_ends_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    two_stages()
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["reading …", "reading: 2 of 2", "looking …", "looking: 3 of 3"]
    assert shown.out == ""


def test_where_a_machine_reads_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    two_stages(quiet=True)
    assert terminal.getvalue() == ""


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"m3node {version('m3node')}\n"
