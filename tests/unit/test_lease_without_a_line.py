from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m3node.intake.receive.association import LeaseReader


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("content", ["", '{"calling":"CT1"'])
def test_a_receiver_killed_before_it_has_written_a_line_leaves_nothing_for_good(
    tmp_path: Path, gone: int, content: str
) -> None:
    path = tmp_path / f"{time.time_ns():019d}-{gone}-0.jsonl"
    path.write_text(content)
    reader = LeaseReader(tmp_path)
    assert reader.poll() == []
    assert reader.live(time.time()) == []
    assert [lease.path for lease in reader.finished(time.time())] == [path]


def test_one_whose_receiver_lives_is_about_to_be_written(tmp_path: Path) -> None:
    (tmp_path / f"{time.time_ns():019d}-{os.getpid()}-0.jsonl").touch()
    reader = LeaseReader(tmp_path)
    reader.poll()
    assert reader.finished(time.time()) == []


def test_lines_that_came_behind_the_readers_back_are_read_first(tmp_path: Path, gone: int) -> None:
    path = tmp_path / f"{time.time_ns():019d}-{gone}-0.jsonl"
    path.touch()
    reader = LeaseReader(tmp_path)
    reader.poll()
    path.write_text('{"pid":1}\n')
    assert reader.finished(time.time()) == []
