"""When there is too little room on the disk, and when there is enough again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from m3node.disk import LOOK_SECONDS, MARGIN, Watermark, free_mb


class Disk:
    """A disk and a clock that do what a test says."""

    def __init__(self) -> None:
        self.free, self.now, self.looks = 1000.0, 0.0, 0

    def mark(self, mb: float) -> Watermark:
        return Watermark(Path(), mb, measure=self._measure, clock=lambda: self.now)

    def _measure(self, _: Path) -> float:
        self.looks += 1
        return self.free


def test_free_space_is_what_the_system_gives_to_us(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    before = status.f_bavail * status.f_frsize / 1e6
    assert free_mb(tmp_path) == pytest.approx(before, abs=500.0)  # others write too


def test_a_disk_below_the_mark_counts_as_full_until_it_is_well_above_it() -> None:
    disk = Disk()
    mark = disk.mark(500.0)
    seen = []
    for free in (1000.0, 500.0, 499.0, 500.0, 500.0 * MARGIN - 1, 500.0 * MARGIN, 500.0):
        disk.free = free
        disk.now += LOOK_SECONDS
        seen.append(mark.below())
    assert seen == [False, False, True, True, True, False, False]


def test_a_crossing_is_told_once_either_way() -> None:
    disk = Disk()
    mark = disk.mark(500.0)
    told = []
    for free in (1000.0, 100.0, 90.0, 1000.0, 1000.0):
        disk.free = free
        disk.now += LOOK_SECONDS
        told.append(mark.crossed())
    assert told == [None, True, None, False, None]


def test_the_disk_is_asked_once_a_second_however_many_instances_come() -> None:
    disk = Disk()
    mark = disk.mark(500.0)
    for _ in range(1000):
        mark.below()
    assert disk.looks == 1
    disk.free = 1.0
    assert mark.below() is False
    assert mark.below(now=True) is True
    assert disk.looks == 2


def test_a_mark_of_zero_is_off() -> None:
    disk = Disk()
    disk.free = 0.0
    assert disk.mark(0.0).below() is False
    assert disk.looks == 0


def test_a_folder_that_is_gone_is_not_a_full_disk(tmp_path: Path) -> None:
    assert Watermark(tmp_path / "gone", 1e12).below() is False
