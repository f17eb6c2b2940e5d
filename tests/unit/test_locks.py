"""A role is one process, whatever the disk has to say."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from m3node.jobs.locks import RoleHeldError, hold, holder
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
