"""What an association holds in memory is bounded, however much its peer sends."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3node.intake.receive import gathered
from m3node.intake.receive.gathered import IN_MEMORY, Gathered, TooLargeError


@settings(deadline=None)
@given(
    runs=st.lists(st.lists(st.binary(max_size=50), max_size=12), max_size=4),
    in_memory=st.integers(0, 300),
)
def test_the_bytes_come_out_as_they_went_in_wherever_they_lie(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[bytes]], in_memory: int
) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(gathered, "IN_MEMORY", in_memory)
        bytes_ = Gathered(tmp_path_factory.getbasetemp())
        for fragments in runs:
            bytes_.clear()
            for fragment in fragments:
                bytes_.add(memoryview(fragment))
            assert bytes(bytes_.view()) == b"".join(fragments)
            assert bytes_.trouble is None
        bytes_.release()


def test_memory_is_bounded_and_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    bytes_ = Gathered(tmp_path)
    block = memoryview(os.urandom(1024 * 1024))
    tracemalloc.start()
    try:
        for _ in range(100):
            bytes_.add(block)
        view = bytes_.view()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 1.6 * IN_MEMORY  # the buffer, and its smaller self while it grows
    assert len(view) == 100 * len(block)
    assert view[-len(block) :] == block
    assert list(tmp_path.iterdir()) == []
    bytes_.release()


@settings(deadline=None)
@given(
    runs=st.lists(st.lists(st.binary(max_size=50), max_size=12), max_size=4),
    in_memory=st.integers(0, 300),
    most=st.integers(0, 300),
)
def test_what_is_larger_than_it_may_be_is_dropped_whole_and_the_next_one_is_not(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[bytes]], in_memory: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(gathered, "IN_MEMORY", in_memory)
        bytes_ = Gathered(tmp_path_factory.getbasetemp())
        bytes_.most, bytes_.most_setting = most, "the setting"
        for fragments in runs:
            bytes_.clear()
            for fragment in fragments:
                bytes_.add(memoryview(fragment))
            whole = b"".join(fragments)
            assert bytes(bytes_.view()) == (whole if len(whole) <= most else b"")
            assert isinstance(bytes_.trouble, TooLargeError) == (len(whole) > most)
        bytes_.release()


def test_of_what_is_too_large_neither_memory_nor_disk_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_ = Gathered(tmp_path)
    bytes_.most = 3_000_000
    block = memoryview(os.urandom(1024 * 1024))
    tracemalloc.start()
    try:
        with monkeypatch.context() as no_disk:
            no_disk.setattr(os, "writev", _refuse)
            for _ in range(1000):
                bytes_.add(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    assert isinstance(bytes_.trouble, TooLargeError)


def test_what_turns_out_too_large_gives_its_disk_back_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "IN_MEMORY", 10)
    bytes_ = Gathered(tmp_path)
    bytes_.most = 20
    before = len(os.listdir("/proc/self/fd"))
    bytes_.add(memoryview(b"12345678 12345678"))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    bytes_.add(memoryview(b"12345678"))
    assert isinstance(bytes_.trouble, TooLargeError)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_is_remembered_until_the_next_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_ = Gathered(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(gathered, "IN_MEMORY", 10)
        full.setattr(os, "writev", _refuse)
        for _ in range(3):
            bytes_.add(memoryview(b"12345678"))
        assert bytes_.view() == b""
    assert bytes_.trouble is not None
    assert bytes_.trouble.errno == errno.ENOSPC
    bytes_.clear()
    bytes_.add(memoryview(b"next"))
    assert bytes_.view() == b"next"
    assert bytes_.trouble is None


def _refuse(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")
