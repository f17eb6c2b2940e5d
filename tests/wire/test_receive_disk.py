"""A disk that is full or broken is answered so that the sender tries again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from receiving import Here, associated, in_this_process, named, raw_store, rejection, tiny

from m3node.intake.receive import gathered
from part10_file import split_file


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with in_this_process(tmp_path) as here:
        yield here


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (errno.ENOSPC, 0xA700),
        (errno.EDQUOT, 0xA700),
        (errno.EMFILE, 0xA700),
        (errno.ENOMEM, 0xA700),
        (errno.EIO, 0x0110),
        (errno.EROFS, 0x0110),
    ],
)
def test_a_disk_that_refuses_is_answered_so_that_the_sender_tries_again(
    here: Here, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    spool = here.folder / "spool"

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with associated(here.port) as association:
        with monkeypatch.context() as full:
            full.setattr(os, "writev", refuse)
            response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
            assert response is not None
            assert response.Status == status
            assert [path for path in spool.rglob("*") if path.is_file()] == []
        response = raw_store(association, tiny(named(1)), sop_instance="2.25.3.1")
        assert response is not None
        assert response.Status == 0x0000


def test_what_is_too_large_for_the_memory_goes_through_the_disk(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "IN_MEMORY", 100_000)
    large = tiny(named(1), os.urandom(1_000_000))
    writev = os.writev

    def refuse_large(fd: int, parts: list[memoryview]) -> int:
        if os.fstat(fd).st_nlink == 0 and os.fstat(fd).st_size > 500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return writev(fd, parts)

    with associated(here.port) as association:
        with monkeypatch.context() as full:
            full.setattr(os, "writev", refuse_large)
            response = raw_store(association, large, sop_instance="2.25.3.1")
            assert response is not None
            assert response.Status == 0xA700
        for data, number in ((tiny(named(2)), 2), (large, 1), (tiny(named(3)), 3)):
            response = raw_store(association, data, sop_instance=f"2.25.3.{number}")
            assert response is not None
            assert response.Status == 0x0000
    assert split_file(here.folder / "spool/2.25.1/2.25.2/2.25.3.1.dcm")[1] == large


def test_no_association_is_accepted_that_could_not_be_leased(here: Here) -> None:
    shutil.rmtree(here.folder / "associations")
    assert rejection(here.port) == (2, 3, 1)
