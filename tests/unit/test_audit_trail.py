"""The trail is whole, whoever writes at once, readable by its owner alone, and bounded in what refusals can write."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

import audited
from m3node.audit import coalescing, files, trail
from m3node.audit.events import ApplicationActivity, AuditLogUsed, Node, SecurityAlert
from m3node.audit.trail import AuditTrail
from m3node.settings import Settings
from small_disk import small_disk
from waiting import wait_for

STRANGER = SecurityAlert("node authentication", Node("STRANGER", "10.9.9.9"), "not among listener.callers")
START = ApplicationActivity(started=True)

WRITER = """
import sys
from pathlib import Path
from m3node.audit.events import ApplicationActivity
from m3node.audit.trail import AuditTrail
from m3node.settings import Settings

trail = AuditTrail(Settings(data_dir=Path(sys.argv[1])), process=sys.argv[2])
sys.stdin.read()
for number in range(200):
    trail.record(ApplicationActivity(True, f"{sys.argv[2]}.{number}"))
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(root: Path, clock: Clock | None = None, **audit: object) -> AuditTrail:
    settings = Settings(data_dir=root, audit=audit)  # type: ignore[arg-type]
    return AuditTrail(settings, process="test", clock=clock or Clock())


def said(root: Path) -> list[str]:
    return [audited.words(message) for message in audited.valid(root / "audit")]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_eight_processes_write_1600_whole_lines_each_in_its_own_order(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)], stdin=subprocess.PIPE)
        for number in range(8)
    ]
    for writer in writers:  # none begins before all are there
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(120) for writer in writers] == [0] * 8
    found = said(tmp_path)
    assert len(found) == 1600
    for number in range(8):
        assert [text for text in found if text.startswith(f"{number}.")] == [f"{number}.{i}" for i in range(200)]


def test_threads_of_a_process_write_whole_lines(tmp_path: Path) -> None:
    ours = opened(tmp_path)
    threads = [
        threading.Thread(target=lambda: [ours.record(ApplicationActivity(True, "x" * 900)) for _ in range(50)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said(tmp_path) == ["x" * 900] * 400


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o377, 0o777])
def test_only_its_owner_reads_it_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        opened(tmp_path).record(START)
        opened(tmp_path).record(START)
    (path,) = (tmp_path / "audit").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(said(tmp_path)) == 2


def test_a_folder_of_the_administrators_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    folder.chmod(0o750)
    opened(tmp_path, folder=folder).record(START)
    (path,) = folder.iterdir()
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (0o750, 0o600)


def test_each_month_has_a_file(tmp_path: Path) -> None:
    ends_of_2026 = 1_798_761_599.0
    files.append(tmp_path, b"<a/>", ends_of_2026)
    files.append(tmp_path, b"<b/>", ends_of_2026 + 1)
    assert [path.name for path in files.months(tmp_path)] == ["2026-12.xml", "2027-01.xml"]


def test_a_month_is_one_of_utc_wherever_the_machine_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")  # fourteen hours ahead
    time.tzset()
    files.append(tmp_path, b"<a/>", 1_798_761_599.0)
    monkeypatch.undo()
    time.tzset()
    assert [path.name for path in files.months(tmp_path)] == ["2026-12.xml"]


def test_a_clock_that_is_set_back_loses_and_overwrites_nothing(tmp_path: Path) -> None:
    month = 31 * 86_400.0
    for number, moment in enumerate((month, 0.0, month, 0.0)):
        files.append(tmp_path, b"<%d/>" % number, moment)
    assert [path.read_bytes() for path in files.months(tmp_path)] == [b"<1/>\n<3/>\n", b"<0/>\n<2/>\n"]


def test_a_line_is_on_disk_before_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk: list[bytes] = []
    sync = os.fdatasync

    def seen(handle: int) -> None:
        sync(handle)
        on_disk.append((tmp_path / "1970-01.xml").read_bytes())

    monkeypatch.setattr(os, "fdatasync", seen)
    files.append(tmp_path, b"<a/>", 0.0)
    files.append(tmp_path, b"<b/>", 0.0)
    assert on_disk == [b"<a/>\n", b"<a/>\n<b/>\n"]


def test_a_torn_line_is_ended_before_the_next(tmp_path: Path) -> None:
    files.append(tmp_path, b"<a/>", 0.0)
    with (tmp_path / "1970-01.xml").open("ab") as stream:
        stream.write(b"<b")
    files.append(tmp_path, b"<c/>", 0.0)
    assert (tmp_path / "1970-01.xml").read_bytes() == b"<a/>\n<b\n<c/>\n"


def test_a_process_that_was_stopped_behind_the_lock_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.1)
    files.append(tmp_path, b"<a/>", 0.0)
    with (tmp_path / "1970-01.xml").open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        files.append(tmp_path, b"<b/>", 0.0)
    assert (tmp_path / "1970-01.xml").read_bytes() == b"<a/>\n<b/>\n"


def test_an_alert_that_comes_again_is_counted_and_written_when_its_minute_is_over(tmp_path: Path) -> None:
    clock = Clock()
    ours = opened(tmp_path, clock)
    for _ in range(1000):
        ours.record(STRANGER)
    one = "node authentication: not among listener.callers"
    assert said(tmp_path) == [one]
    clock.now += coalescing.WINDOW_SECONDS
    ours.record(START)
    assert said(tmp_path) == [one, f"{one} (999 times more)", ""]
    ours.record(STRANGER)
    assert said(tmp_path)[3:] == [one]


def test_what_is_counted_is_written_though_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescing, "WINDOW_SECONDS", 0.2)
    ours = AuditTrail(Settings(data_dir=tmp_path), process="test")
    ours.record(STRANGER)
    ours.record(STRANGER)
    wait_for(lambda: len(said(tmp_path)) == 2)
    assert said(tmp_path)[1].endswith("(once more)")


def test_what_is_counted_is_written_when_the_process_ends(tmp_path: Path) -> None:
    program = WRITER.replace("ApplicationActivity(True, ", "SecurityAlert('limit', Node('A', 'b'), ")
    program = program.replace("import ApplicationActivity", "import Node, SecurityAlert").replace(".{number}", "")
    subprocess.run([sys.executable, "-c", program, str(tmp_path), "x"], input=b"", check=True)
    assert said(tmp_path) == ["limit: x", "limit: x (199 times more)"]


def test_what_is_counted_is_written_by_a_process_that_ends_unnoticed(tmp_path: Path) -> None:
    program = WRITER.replace("ApplicationActivity(True, ", "SecurityAlert('limit', Node('A', 'b'), ")
    program = program.replace("import ApplicationActivity", "import Node, SecurityAlert").replace(".{number}", "")
    program += "import os\nfrom m3node.audit.trail import write_now\nwrite_now()\nos._exit(0)\n"
    subprocess.run([sys.executable, "-c", program, str(tmp_path), "x"], input=b"", check=True)
    assert said(tmp_path) == ["limit: x", "limit: x (199 times more)"]


def test_a_thread_whose_disk_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    ours = opened(tmp_path)
    with ours._lock:
        ours.write_in(0.01)
    ours.record(START)
    assert len(said(tmp_path)) == 1


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 50)), max_size=60))
def test_every_alert_is_counted_once_and_none_is_written_more_than_twice_a_minute(
    steps: list[tuple[str, float]],
) -> None:
    alerts = {name: SecurityAlert("limit", Node(name, "10.0.0.1"), "too many") for name in "abc"}
    coalesced, now = coalescing.Coalescing(), 0.0
    written: list[tuple[float, SecurityAlert, int]] = []
    for name, pause in steps:
        now += pause
        written += [(now, alert, count) for alert, count in coalesced.due(now)]
        if (at_once := coalesced.admit(alerts[name], now)) is not None:
            written.append((now, at_once, 1))
    written += [(now, alert, count) for alert, count in coalesced.due(now, all_of_them=True)]
    for name, alert in alerts.items():
        assert sum(count for _, one, count in written if one == alert) == sum(step[0] == name for step in steps)
        times = [at for at, one, _ in written if one == alert]
        for first, third in zip(times[:-1], times[2:], strict=False):
            assert third - first >= coalescing.WINDOW_SECONDS or third == now


def test_alerts_that_differ_are_each_written(tmp_path: Path) -> None:
    ours = opened(tmp_path)
    other_peer = SecurityAlert(STRANGER.kind, Node("STRANGER", "10.9.9.8"), STRANGER.reason)
    other_reason = SecurityAlert(STRANGER.kind, STRANGER.peer, "no certificate")
    for alert in (STRANGER, other_peer, other_reason):
        ours.record(alert)
    ours.close()
    assert len(said(tmp_path)) == 3


def test_a_caller_with_ever_new_titles_does_not_fill_the_disk(tmp_path: Path) -> None:
    ours = opened(tmp_path)
    for number in range(5000):
        ours.record(SecurityAlert("node authentication", Node(f"T{number}", "10.9.9.9"), "not known"))
    ours.close()
    found = said(tmp_path)
    assert len(found) == coalescing.MOST + 2
    rest = 5000 - coalescing.MOST - 1
    assert found[-2:] == [
        f"node authentication: {coalescing.OTHERS}",
        f"node authentication: {coalescing.OTHERS} ({rest} times more)",
    ]


def test_ever_new_titles_for_a_whole_day_are_some_megabytes_and_all_are_counted() -> None:
    coalesced = coalescing.Coalescing()
    written: list[tuple[SecurityAlert, int]] = []
    for second in range(86_400):
        now = 1000.0 + second
        written += coalesced.due(now)
        for number in range(2):
            alert = SecurityAlert("node authentication", Node(f"T{second}.{number}", "10.9.9.9"), "not known")
            if (at_once := coalesced.admit(alert, now)) is not None:
                written.append((at_once, 1))
    written += coalesced.due(now, all_of_them=True)
    assert sum(count for _, count in written) == 2 * 86_400
    named = [alert for alert, _ in written if alert.peer.ae_title]
    assert coalescing.MOST + 14_000 < len(named) <= coalescing.MOST + 86_400 / coalescing.ANOTHER_SECONDS
    assert len(written) - len(named) <= 2 * 1441


def test_a_full_disk_stops_nothing_and_loses_nothing_that_fits_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        clock = Clock()
        ours = opened(disk.folder, clock)
        ours.record(ApplicationActivity(True, "before"))
        disk.fill()
        with caplog.at_level(logging.WARNING):
            for number in range(50):
                ours.record(ApplicationActivity(True, f"{number} {'x' * 900}"))
            assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
            assert files.trouble(Settings(data_dir=disk.folder)).endswith("is full")
            disk.empty()
            ours.record(ApplicationActivity(True, "after"))
        assert "the audit trail is written again; 0 messages were lost" in caplog.text
        whole = [line for line in audited.lines(disk.folder / "audit") if line.endswith(b"</AuditMessage>")]
        assert [line for line in whole if audited.faults(line)] == []
        words = [audited.words(etree.fromstring(line)).split(" ")[0] for line in whole]
        assert words == ["before", *[str(number) for number in range(50)], "after"]
        assert len(audited.lines(disk.folder / "audit")) - len(whole) <= 50  # halves, each on a line of its own
        assert files.trouble(Settings(data_dir=disk.folder)) == ""
        ours.close()


def test_what_waits_for_the_disk_is_written_though_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "AGAIN_SECONDS", 0.05)
    refusals = [OSError(28, "No space left on device")] * 3

    def refuse(folder: Path, line: bytes, now: float) -> None:
        if refusals:
            raise refusals.pop()
        files.append(folder, line, now)

    monkeypatch.setattr(trail, "append", refuse)
    ours = AuditTrail(Settings(data_dir=tmp_path), process="test")
    ours.record(START)
    wait_for(lambda: said(tmp_path) == [""])


def test_memory_for_what_the_disk_refuses_is_bounded_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: Path, line: bytes, now: float) -> None:
        raise OSError(28, "No space left on device")

    clock = Clock()
    ours = opened(tmp_path, clock)
    with monkeypatch.context() as patch:
        patch.setattr(trail, "append", refuse)
        for number in range(trail.KEPT + 10):
            ours.record(ApplicationActivity(True, str(number)))
        assert ours.lost == 10
        assert caplog.text.count("cannot be written") == 1
        clock.now += trail.REMINDER_SECONDS
        ours.record(START)
        assert caplog.text.count("cannot be written") == 2
    ours.close()
    assert said(tmp_path) == [*[str(number) for number in range(11, trail.KEPT + 10)], ""]


def test_nothing_that_is_wrong_with_an_event_reaches_its_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = opened(tmp_path)
    ours.record("no event")  # type: ignore[arg-type]
    ours.record(AuditLogUsed(None))  # type: ignore[arg-type]
    assert caplog.text.count("an event was not written to the audit trail") == 2
    ours.record(START)
    assert len(said(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_said_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(data_dir=tmp_path, audit={"folder": tmp_path / "file" / "audit"})  # type: ignore[arg-type]
    assert files.trouble(settings)
    assert files.trouble(Settings(data_dir=tmp_path)) == ""
