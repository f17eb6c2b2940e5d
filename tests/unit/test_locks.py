"""A role is one process, whatever the disk has to say."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from m3node.jobs.locks import RoleHeldError, hold, holder, left_by
from m3node.layout import DataLayout


def test_a_role_begins_on_a_full_disk_and_keeps_a_second_one_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("m3node.jobs.locks.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(os, "pwrite", full)
    layout = DataLayout(tmp_path)
    with hold(layout, "listen"):
        assert holder(layout, "listen") is not None
        with pytest.raises(RoleHeldError, match="an unknown process"), hold(layout, "listen"):
            pass
    assert holder(layout, "listen") is None


def test_who_may_only_read_the_data_folder_is_told_who_is_a_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, really = DataLayout(tmp_path), os.open

    def reading_only(path: Path, flags: int, *mode: int) -> int:
        # The superuser, who may run the tests, is allowed everything.
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(path, flags, *mode)

    with hold(layout, "listen"):
        with monkeypatch.context() as outsider:
            outsider.setattr(os, "open", reading_only)
            found = holder(layout, "listen")
        assert found is not None
        assert found.pid == os.getpid()


def test_who_is_a_role_is_named_though_one_with_a_longer_name_was_it_before(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    layout.locks.mkdir()
    (layout.locks / "listen.lock").write_text('{"host": "' + "x" * 200 + '", "pid": 1, "since": 1.0}')
    assert holder(layout, "listen") is None
    with hold(layout, "listen"):
        found = holder(layout, "listen")
        assert found is not None
        assert found.pid == os.getpid()


def test_who_comes_when_a_role_is_just_ending_waits_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.locks.PATIENCE_SECONDS", 60.0)
    layout, refused = DataLayout(tmp_path), threading.Event()
    flock = fcntl.flock

    def noted(handle: int, how: int) -> None:
        try:
            flock(handle, how)
        except BlockingIOError:
            refused.set()
            raise

    def replacing() -> None:
        with hold(layout, "listen"):
            pass

    with ThreadPoolExecutor(1) as pool:
        with hold(layout, "listen"):
            monkeypatch.setattr(fcntl, "flock", noted)
            next_one = pool.submit(replacing)
            assert refused.wait(60)
        next_one.result()


def test_who_ends_in_order_is_forgotten_and_who_does_not_or_leaves_something_is_remembered(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    assert left_by(layout, "worker-3") is None
    with hold(layout, "worker-3"):
        assert left_by(layout, "worker-3") is None
    assert left_by(layout, "worker-3") is None
    with hold(layout, "worker-3") as tenure:
        tenure.leaves_something = True
    left = left_by(layout, "worker-3")
    assert left is not None
    assert left.pid == os.getpid()
    with hold(layout, "worker-3"):
        pass
    assert left_by(layout, "worker-3") is None
    with pytest.raises(KeyboardInterrupt), hold(layout, "worker-3"):
        raise KeyboardInterrupt
    assert left_by(layout, "worker-3") is not None


def test_a_holder_says_which_ports_it_listens_on_until_it_is_gone(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    with hold(layout, "listen") as tenure:
        before = holder(layout, "listen")
        tenure.listens_on([11112, 2762])
        after = holder(layout, "listen")
        tenure.listens_on([5])
        last = holder(layout, "listen")
    assert before is not None
    assert (before.pid, before.ports) == (os.getpid(), ())
    assert after == replace(before, ports=(11112, 2762))
    assert last == replace(before, ports=(5,))
    assert left_by(layout, "listen") is None


def test_a_new_data_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path / "made" / "data")
    before = os.umask(0o002)
    try:
        with hold(layout, "listen"):
            layout.create()
    finally:
        os.umask(before)
    assert layout.root.stat().st_mode & 0o777 == 0o700


def test_a_data_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path / "data")
    layout.root.mkdir()
    layout.root.chmod(0o770)
    with hold(layout, "listen"):
        layout.create()
    assert layout.root.stat().st_mode & 0o777 == 0o770
