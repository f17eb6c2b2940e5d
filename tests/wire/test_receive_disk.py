"""A disk that is full or broken is answered so that the sender tries again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from receiving import CT, Here, associated, in_this_process, named, raw_store, rejection, running, tiny

from m3node.disk import Watermark
from m3node.intake.receive import gathered
from m3node.settings import Destination, DiskSettings
from part10_file import split_file

COMMITMENT = "1.2.840.10008.1.20.1"
PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", commitment=True)
NEVER_ENOUGH = DiskSettings(warn_free_mb=0.0, refuse_free_mb=1e12)


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


class Disk:
    """A disk with as much room as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_mb = 1000.0
        monkeypatch.setattr("m3node.disk.LOOK_SECONDS", 0.0)
        monkeypatch.setattr("m3node.disk.Watermark.__init__.__kwdefaults__", {**_defaults(), "measure": self.measure})

    def measure(self, _: Path) -> float:
        return self.free_mb


def _defaults() -> dict[str, object]:
    return dict(Watermark.__init__.__kwdefaults__ or {})


def test_below_the_mark_an_open_association_is_told_so_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    with in_this_process(tmp_path, disk=DiskSettings(refuse_free_mb=500.0)) as here:
        spool = here.folder / "spool"
        writes: list[object] = []
        with associated(here.port) as association:
            for free, number, status in (
                (1000.0, 1, 0x0000),
                (499.0, 2, 0xA700),
                (510.0, 2, 0xA700),
                (530.0, 2, 0x0000),
            ):
                disk.free_mb = free
                before = sorted(spool.rglob("*"))
                with monkeypatch.context() as watched:
                    watched.setattr(os, "open", _noting(os.open, writes))
                    response = raw_store(association, tiny(named(number)), sop_instance=f"2.25.3.{number}")
                assert response is not None
                assert response.Status == status
                if status:
                    assert (sorted(spool.rglob("*")), writes) == (before, [])
                writes.clear()


def _noting(call: Callable[..., int], calls: list[object]) -> Callable[..., int]:
    def noted(path: object, *args: object, **options: object) -> int:
        calls.append(path)
        return call(path, *args, **options)

    return noted


def test_what_is_too_large_for_the_memory_takes_no_disk_below_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(gathered, "IN_MEMORY", 100_000)
    made: list[object] = []
    temporary = gathered.tempfile.TemporaryFile
    monkeypatch.setattr(
        gathered.tempfile, "TemporaryFile", lambda **options: made.append(options) or temporary(**options)
    )
    large = tiny(named(1), os.urandom(1_000_000))
    with (
        in_this_process(tmp_path, disk=DiskSettings(refuse_free_mb=500.0)) as here,
        associated(here.port) as association,
    ):
        disk.free_mb = 100.0
        response = raw_store(association, large, sop_instance="2.25.3.1")
        assert response is not None
        assert response.Status == 0xA700
        assert made == []
        disk.free_mb = 1000.0
        response = raw_store(association, large, sop_instance="2.25.3.1")
        assert response is not None
        assert response.Status == 0x0000
        assert len(made) == 1


def test_below_the_mark_new_associations_are_rejected_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, disk=NEVER_ENOUGH) as node:
        assert [rejection(node.port) for _ in range(5)] == [(2, 3, 2)] * 5
        assert rejection(node.port, calling="STRANGER") == (1, 1, 3)
    said = [record.message for record in caplog.records if "disk.refuse_free_mb" in record.message]
    assert len(said) == 1


def test_below_the_mark_a_peer_that_only_reports_storage_commitment_is_heard(tmp_path: Path) -> None:
    with running(tmp_path, disk=NEVER_ENOUGH, destinations=(PACS,)) as node:
        assert rejection(node.port, calling="PACS", sop_class=COMMITMENT) is None
        assert rejection(node.port, calling="PACS", sop_class=CT) == (2, 3, 2)
