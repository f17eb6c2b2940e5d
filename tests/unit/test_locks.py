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
