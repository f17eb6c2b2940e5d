"""What processes count is put together whoever of them died, and no disk and no file keeps anybody from working."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import pytest

from m3node.audit.events import Event
from m3node.delivery.state import DeliveryState
from m3node.metrics import counting, families
from m3node.metrics.snapshot import Counts, all_counts, read_counts, write_counts
from m3node.process import process_started
from small_disk import small_disk
from waiting import wait_for

PROCESS = """
import os, signal, sys, threading
from pathlib import Path
from m3node.metrics import counting
from m3node.settings import Settings

folder, name, times, end = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
counting.start(Settings(data_dir=folder), name)
def count():
    for _ in range(times):
        counting.instance_received("new", 1000)
        counting.stage_took("detect", 3.0)
threads = [threading.Thread(target=count) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if end == "exit":
    counting.write_now()
    os._exit(0)
if end == "wait":
    signal.pause()
"""


def process(folder: Path, name: str, times: int, end: str = "") -> subprocess.Popen[bytes]:
    """Counts so many instances in each of four threads, and ends as told: in order, by `os._exit`, or not by itself."""
    (folder / "metrics").mkdir(exist_ok=True)
    words = [sys.executable, "-c", PROCESS, str(folder), name, str(times), end]
    return subprocess.Popen(words)


def instances(folder: Path) -> float:
    return all_counts(folder / "metrics").totals.get(("instances_received", "new"), 0)


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as one that has counted nothing yet."""
    monkeypatch.setattr(counting, "_counts", Counts())
    monkeypatch.setattr(counting, "_writer", None)
    monkeypatch.setattr(counting, "_changed", threading.Event())


def test_processes_that_count_at_once_are_added_up_however_they_ended(tmp_path: Path) -> None:
    several = [process(tmp_path, f"receiver-{number}", 250, end) for number, end in enumerate(("", "exit", "exit", ""))]
    for one in several:
        assert one.wait(60) == 0
    counts = all_counts(tmp_path / "metrics")
    assert counts.totals[("instances_received", "new")] == 4000
    assert counts.totals[("received_bytes",)] == 4_000_000
    buckets, total = counts.times[("detect",)]
    assert (sum(buckets), buckets[families.SECONDS.index(5.0)], total) == (4000, 4000, 12_000.0)


def test_what_a_process_counted_that_was_killed_still_counts_and_the_next_one_goes_on_from_it(tmp_path: Path) -> None:
    killed = process(tmp_path, "receiver-1", 25, "wait")
    wait_for(lambda: instances(tmp_path) == 100)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert instances(tmp_path) == 100
    assert process(tmp_path, "receiver-1", 5, "exit").wait(60) == 0
    assert instances(tmp_path) == 120
    assert [file.name for file in (tmp_path / "metrics").iterdir()] == ["receiver-1.json"]


def test_a_second_process_of_a_role_leaves_the_file_to_the_first(tmp_path: Path) -> None:
    first = process(tmp_path, "deliver", 25, "wait")
    wait_for(lambda: instances(tmp_path) == 100)
    assert process(tmp_path, "deliver", 5, "exit").wait(60) == 0
    assert instances(tmp_path) == 100
    first.kill()
    first.wait()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"{",
        b"[]",
        b'{"schema": "m3node.metrics/1"}',
        b'{"schema": "m3node.metrics/2", "totals": [["received_bytes", 5]], "times": []}',
        b'{"schema": "m3node.metrics/1", "totals": [["received_bytes", "5"]], "times": []}',
        b'{"schema": "m3node.metrics/1", "totals": [["received_bytes", -5]], "times": []}',
        b'{"schema": "m3node.metrics/1", "totals": [["received_bytes", NaN]], "times": []}',
        b'{"schema": "m3node.metrics/1", "totals": [[5]], "times": []}',
        b'{"schema": "m3node.metrics/1", "totals": [[["x"], 5]], "times": []}',
        b'{"schema": "m3node.metrics/1", "totals": [], "times": [["detect", [1], 5]]}',
        b'{"schema": "m3node.metrics/1", "totals": [], "times": [["detect"]]}',
        b'{"schema": "m3node.metrics/1", "totals": {"x": 1}, "times": 3}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_counts_nothing_and_harms_no_other(tmp_path: Path, content: bytes) -> None:
    write_counts(tmp_path / "keeper.json", Counts({("received_bytes",): 7}))
    (tmp_path / "clerk.json").write_bytes(content)
    assert read_counts(tmp_path / "clerk.json") == Counts()
    assert all_counts(tmp_path) == Counts({("received_bytes",): 7})


def test_a_word_that_is_none_of_the_metrics_becomes_other(nothing: None) -> None:
    counting.association_ended("DOE^JANE")
    counting.instance_received("1.2.3")
    counting.delivery_ended("pacs", "0xA700")
    counting.audit_event("query")
    counting.web_request(999)
    counting.web_request(204)
    assert counting.counted().totals == {
        ("associations", "other"): 1,
        ("instances_received", "other"): 1,
        ("deliveries", "pacs", "other"): 1,
        ("audit_events", "other"): 1,
        ("web_requests", "other"): 1,
        ("web_requests", "2xx"): 1,
    }


def test_a_time_falls_into_the_bucket_that_ends_with_it(nothing: None) -> None:
    for seconds in (0.0, 0.1, 0.2, 1e9):
        counting.stage_took("build", seconds)
    buckets, total = counting.counted().times[("build",)]
    assert (buckets[0], buckets[1], buckets[-1], sum(buckets), total) == (2, 1, 1, 4, pytest.approx(1e9))


def test_a_full_disk_is_said_once_and_what_was_counted_meanwhile_is_written_when_there_is_room(
    nothing: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        writer = counting._Writer(disk.folder / "keeper.json")
        counting.web_request(200)
        writer.write()
        before = writer.path.read_bytes()
        disk.fill()
        for _ in range(3):
            counting.web_request(200)
            writer.write()
        assert writer.path.read_bytes() == before
        assert sorted(path.name for path in disk.folder.iterdir()) == ["filler", "keeper.json"]
        disk.empty()
        writer.write()
        assert read_counts(writer.path).totals == {("web_requests", "2xx"): 4}
    assert [record.message for record in caplog.records] == [
        "metrics cannot be written (No space left on device); they are counted, and written later"
    ]


def test_a_process_that_has_nothing_to_count_says_by_its_file_that_it_lives(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    often = PROCESS.replace(
        "\ncounting.start(", "\ncounting.BEAT_SECONDS = counting.WRITE_SECONDS = 0.05\ncounting.start("
    )
    with subprocess.Popen([sys.executable, "-c", often, str(tmp_path), "keeper", "1", "wait"]) as idle:
        try:
            wait_for(lambda: instances(tmp_path) == 4)
            path = tmp_path / "metrics" / "keeper.json"
            before = path.stat().st_ino
            os.utime(path, (0, 0))
            wait_for(lambda: path.stat().st_mtime > 0)
            assert path.stat().st_ino == before  # it takes no room, which a full disk would not have
        finally:
            idle.kill()


def test_a_process_without_a_data_folder_counts_in_memory_alone(nothing: None, tmp_path: Path) -> None:
    counting._Writer(tmp_path / "not" / "made" / "keeper.json").write()
    counting.write_now()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_small_json_without_anything_but_words_and_numbers(tmp_path: Path) -> None:
    write_counts(tmp_path / "keeper.json", Counts({("deliveries", "pacs", "sent"): 2}, {("liver",): ((1, 2), 0.5)}))
    assert json.loads((tmp_path / "keeper.json").read_bytes()) == {
        "schema": "m3node.metrics/1",
        "owner": [socket.gethostname(), os.getpid(), process_started(os.getpid())],
        "totals": [["deliveries", "pacs", "sent", 2]],
        "times": [["liver", [1, 2], 0.5]],
    }
    assert os.listdir(tmp_path) == ["keeper.json"]


def test_every_state_of_a_delivery_and_every_audited_event_has_a_word_of_its_own() -> None:
    assert {state.value for state in DeliveryState} == set(families.OUTCOMES) - {"other"}
    assert {kind.__name__ for kind in get_args(Event)} == {
        "".join(word.capitalize() for word in kind.split("_")) for kind in families.AUDIT_KINDS if kind != "other"
    }
