"""A file is whole or absent: what fails half way leaves no name, and what is there is not replaced unasked."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m3node import durable
from m3node.durable import remove_parts, write_once, write_over

Write = Callable[[Path, bytes], object]


@pytest.mark.parametrize("write", [write_once, write_over])
def test_the_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    done: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*given: Any) -> Any:
            done.append(name)
            return real(*given)

        monkeypatch.setattr(durable.os, name, call)

    for name in ("fdatasync", "link", "replace", "fsync"):
        noted(name)
    write(tmp_path / "a", b"new")
    assert done == ["fdatasync", "link" if write is write_once else "replace", "fsync"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_name_that_somebody_else_has_just_given_is_on_disk_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"theirs")
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    assert not write_once(tmp_path / "a", b"ours")
    assert synced == [tmp_path]


@pytest.mark.parametrize(
    ("write", "failing"),
    [(write_once, "fdatasync"), (write_once, "link"), (write_over, "fdatasync"), (write_over, "replace")],
)
def test_a_disk_that_refuses_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, failing: str
) -> None:
    before = {} if write is write_once else {"a": b"old"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_written_once_stays_and_what_is_written_over_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert write_once(path, b"first")
    assert not write_once(path, b"second")
    assert path.read_bytes() == b"first"
    write_over(path, b"third")
    assert path.read_bytes() == b"third"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        write_over(tmp_path / "a", b"new")
    assert failed.value.filename == str(tmp_path)


def test_what_was_left_half_written_goes_unless_it_is_too_young(tmp_path: Path) -> None:
    for name, at in ((".old.part", 1000), (".young.part", 3000), ("a.part", 1000), (".b", 1000)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (at, at))
    assert remove_parts(tmp_path, before=2000) == 1
    assert {path.name for path in tmp_path.iterdir()} == {".young.part", "a.part", ".b"}
    assert remove_parts(tmp_path) == 1
    assert remove_parts(tmp_path / "gone") == 0
