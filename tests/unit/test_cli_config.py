"""``m3node config check`` shows what is in force, warns of what surprises, and refuses what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from m3node.cli import main
from m3node.cli.config import find_surprises
from m3node.settings import load

WORKING = """\
data_dir = "{folder}/data"
[listener]
host = "0.0.0.0"
[[listener.callers]]
ae_title = "CT1"
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "192.0.2.7"
port = 104
"""


@pytest.fixture
def working(tmp_path: Path) -> Path:
    path = tmp_path / "m3node.toml"
    path.write_text(WORKING.format(folder=tmp_path), encoding="utf-8")
    return path


def test_a_file_that_connects_two_machines_gives_no_warning(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(working), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["warnings"] == []
    assert shown["settings"]["listener"]["callers"][0]["ae_title"] == "CT1"


def test_what_differs_from_the_default_is_marked(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(working)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert '* listener.host = "0.0.0.0"' in lines
    assert "  listener.port = 11112" in lines


def test_the_defaults_warn_that_nobody_sends_and_nobody_receives() -> None:
    warnings = "\n".join(find_surprises(load()))
    assert "listener.callers is empty" in warnings
    assert "listener.host is 127.0.0.1" in warnings
    assert "destinations is empty" in warnings


def test_a_detector_that_is_not_installed_is_warned_of(working: Path) -> None:
    (warning,) = find_surprises(load(working, {"detector.name": "crystal-ball"}))
    assert "crystal-ball" in warning
    assert "contrast" in warning


def test_a_data_folder_below_a_file_is_warned_of(working: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (warning,) = find_surprises(load(working, {"data_dir": tmp_path / "file" / "data"}))
    assert "data_dir" in warning
    assert "not a folder" in warning


def test_a_data_folder_that_cannot_be_written_is_warned_of(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere, so the test says no for the kernel
    (warning,) = find_surprises(load(working))
    assert "may not write" in warning


@pytest.mark.parametrize("key", ["watch.folder", "watch.out"])
def test_a_watched_folder_that_is_a_file_is_warned_of(working: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    folders = {"watch.folder": tmp_path / "in", "watch.out": tmp_path / "out", key: tmp_path / "file"}
    (warning,) = find_surprises(load(working, folders))
    assert warning.startswith(f"{key} is ")
    assert "not a folder" in warning


def test_a_destination_that_is_the_node_itself_is_warned_of(working: Path) -> None:
    destination = {"name": "self", "ae_title": "M3NODE", "host": "127.0.0.1", "port": 11112}
    (warning,) = find_surprises(load(working, {"destinations": [destination]}))
    assert "self" in warning
    assert "node itself" in warning


def test_wrong_settings_exit_with_2_and_name_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[listener]\nprot = 1\n", encoding="utf-8")
    assert main(["config", "check", "--config", str(path)]) == 2
    assert "listener.prot" in capsys.readouterr().err


def test_config_without_an_action_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["config"])
    assert caught.value.code == 2
