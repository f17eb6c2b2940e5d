"""A lease says who is sending and what was stored, and dies with the process that holds it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3node.intake.receive.association import (
    STALE_SECONDS,
    ArrivalEvent,
    ClosedEvent,
    LeaseReader,
    OpenLease,
    is_live,
    process_started,
    read_leases,
)


def open_lease(folder: Path) -> OpenLease:
    return OpenLease(folder, calling="CT1", called="M3NODE", peer="127.0.0.1")


def test_a_reader_hears_of_each_stored_instance_once_and_of_the_end(tmp_path: Path) -> None:
    reader = LeaseReader(tmp_path)
    lease = open_lease(tmp_path)
    assert reader.poll() == []
    lease.append("spool/1/2/3.dcm", "new")
    lease.append("spool/1/9/4.dcm", "duplicate", urgent=True)
    first, second = reader.poll()
    assert isinstance(first, ArrivalEvent)
    assert (first.calling, first.path, first.status, first.series) == ("CT1", "spool/1/2/3.dcm", "new", "2")
    assert isinstance(second, ArrivalEvent)
    assert second.series == "9"
    assert (first.urgent, second.urgent) == (False, True)
    assert reader.poll() == []
    (known,) = reader.leases.values()
    assert (known.stored, known.last_series, known.called, known.peer) == (2, "9", "M3NODE", "127.0.0.1")
    lease.close()
    (end,) = reader.poll()
    assert isinstance(end, ClosedEvent)
    assert end.association == lease.id


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(cuts=st.lists(st.floats(0.0, 1.0), max_size=6))
def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path, cuts: list[float]) -> None:
    lease = open_lease(tmp_path)
    for number in range(5):
        lease.append(f"spool/1/2/{number}.dcm", "new")
    lease.close()
    whole = lease.path.read_bytes()
    reader = LeaseReader(tmp_path)
    events = []
    for cut in [*sorted(cuts), 1.0]:
        lease.path.write_bytes(whole[: round(cut * len(whole))])
        events += reader.poll()
    assert [event.path for event in events if isinstance(event, ArrivalEvent)] == [
        f"spool/1/2/{number}.dcm" for number in range(5)
    ]
    assert isinstance(events[-1], ClosedEvent)
    lease.path.unlink()


def test_an_open_association_is_live_until_it_is_closed(tmp_path: Path) -> None:
    lease = open_lease(tmp_path)
    (known,) = read_leases(tmp_path)
    assert is_live(known, time.time())
    lease.close()
    (known,) = read_leases(tmp_path)
    assert not is_live(known, time.time())


def test_an_idle_association_is_live_as_long_as_it_is_touched(tmp_path: Path) -> None:
    lease = open_lease(tmp_path)
    (known,) = read_leases(tmp_path)
    now = time.time()
    os.utime(lease.path, (now, now - STALE_SECONDS - 1))
    assert not is_live(known, now)
    lease.touch()
    assert is_live(known, time.time())
    lease.close()


def test_a_lease_that_is_only_not_touched_is_followed_on(tmp_path: Path) -> None:
    lease = open_lease(tmp_path)
    reader = LeaseReader(tmp_path)
    reader.poll()
    os.utime(lease.path, (0, 0))
    assert reader.live(time.time()) == []
    assert reader.finished(time.time()) == []
    lease.close()
    assert reader.finished(time.time()) == []  # its last line is not read yet
    reader.poll()
    assert [known.id for known in reader.finished(time.time())] == [lease.id]


def test_a_lease_that_the_disk_refuses_for_a_moment_takes_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (open_lease(tmp_path) for _ in range(3))
    for lease in (first, second, third):
        lease.append(f"spool/1/2/{lease.id}.dcm", "new")
    reader = LeaseReader(tmp_path)
    real = Path.open

    def refuse(path: Path, *given: Any, **named: Any) -> Any:
        if path == second.path:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return real(path, *given, **named)

    with monkeypatch.context() as trouble:
        trouble.setattr(Path, "open", refuse)
        assert [event.association for event in reader.poll()] == [first.id, third.id]
        assert reader.poll() == []
    assert [event.association for event in reader.poll()] == [second.id]
    assert [record.getMessage() for record in caplog.records] == [
        f"lease {second.path.name} cannot be read (Too many open files): trying again"
    ]


def test_a_line_torn_by_a_full_disk_does_not_take_the_next_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = open_lease(tmp_path)
    real = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: real(fd, data[:9]))
        with pytest.raises(OSError, match="No space left"):
            lease.append("spool/1/2/3.dcm", "new")
    lease.append("spool/1/2/4.dcm", "new")
    lease.close()
    reader = LeaseReader(tmp_path)
    assert [event.path for event in reader.poll() if isinstance(event, ArrivalEvent)] == ["spool/1/2/4.dcm"]


def test_a_lease_that_a_full_disk_refuses_leaves_no_file_and_no_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    handles = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        open_lease(tmp_path)
    assert set(os.listdir("/proc/self/fd")) == handles
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_no_lease(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from m3node.intake.receive.association import OpenLease;"
        "OpenLease(Path(sys.argv[1]), calling='A', called='B', peer='C'); print('open', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    reader = LeaseReader(tmp_path)
    reader.poll()
    (known,) = reader.leases.values()
    assert is_live(known, time.time())
    assert reader.finished(time.time()) == []
    process.kill()
    # Dead before it is reaped, too.
    deadline = time.monotonic() + 10
    while process_started(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_live(known, time.time())
    assert [lease.id for lease in reader.finished(time.time())] == [known.id]
    process.wait()
    process.stdout.close()


def test_a_process_id_used_again_holds_no_lease(tmp_path: Path) -> None:
    lease = open_lease(tmp_path)
    lease.path.write_text(lease.path.read_text().replace(process_started(os.getpid()), "1"))
    (known,) = read_leases(tmp_path)
    assert not is_live(known, time.time())


def test_a_removed_file_is_forgotten(tmp_path: Path) -> None:
    reader = LeaseReader(tmp_path)
    lease = open_lease(tmp_path)
    lease.close()
    reader.poll()
    lease.path.unlink()
    assert reader.poll() == []
    assert reader.leases == {}
