"""What a disk or a bug of ours does to one series costs the others nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeping import QUIET, Node
from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import seeded_uid
from m3node.intake.keeper.keeper import RETRY_SECONDS
from m3node.intake.keeper.register import READ_TRIES
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import Stack
from m3node.rejection import Reason


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def _no_handles() -> InputRejected:
    """What reading makes of an open that fails."""
    error = InputRejected(Reason.UNREADABLE, "cannot be read: Too many open files")
    error.__cause__ = OSError(24, "Too many open files")
    return error


def _refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[Path]:
    """Refuse to read any file of series 1; return those that were tried."""
    tried: list[Path] = []

    def read(path: Path, root: Path, *, received_at: float) -> InstanceHeader:
        if path.parent.name == seeded_uid(1, "series"):
            tried.append(path)
            raise error
        return read_header(path, root, received_at=received_at)

    monkeypatch.setattr("m3node.intake.keeper.register.read_header", read)
    return tried


DISK = pytest.mark.parametrize("error", [OSError(5, "Input/output error"), _no_handles()], ids=["disk", "handles"])


@DISK
def test_a_file_that_the_disk_refuses_for_a_moment_is_read_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:
        tried = _refuse(broken, error)
        node.store(*node.series(1), *node.series(2))
        node.wait(QUIET)
    assert len(tried) == 2 * 12  # when they arrived, and when the series was quiet
    node.wait(RETRY_SECONDS - 1)
    assert (node.manifests_of(1), node.manifests_of(2)) == (0, 1)
    node.wait(QUIET + 1)
    assert node.manifests_of(1) == 1
    assert node.recorded == []


@DISK
def test_a_damaged_file_that_the_disk_refused_at_first_keeps_nobody_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:
        _refuse(broken, error)
        node.store(*node.series(1))
    with monkeypatch.context() as broken:
        _refuse(broken, InputRejected(Reason.UNREADABLE, "is damaged"))
        node.wait(QUIET)
        node.wait(QUIET + RETRY_SECONDS)
    assert node.keeper.waiting == frozenset()
    assert {rejection.reason for *_, rejection in node.recorded} == {Reason.UNREADABLE}


@DISK
def test_a_file_that_the_disk_refuses_for_long_is_left_for_the_next_start(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:
        tried = _refuse(broken, error)
        node.store(*node.series(1), *node.series(2))
        for _ in range(2 * READ_TRIES):
            node.wait(QUIET + RETRY_SECONDS)
    assert len(tried) == READ_TRIES * 12
    assert (node.manifests_of(1), node.manifests_of(2)) == (0, 1)
    assert node.keeper.waiting == frozenset()
    node.restart()
    node.wait(QUIET)
    assert node.manifests_of(1) == 1
    assert node.recorded == []


def test_a_file_that_breaks_the_reader_costs_only_its_own_series(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, ZeroDivisionError("PATIENT^NAME"))
    node.store(*node.series(1), *node.series(2))
    node.wait(QUIET)
    assert (node.manifests_of(1), node.manifests_of(2)) == (0, 1)
    assert node.reasons == [(0, Reason.UNREADABLE)]
    assert "PATIENT" not in node.recorded[0][3].message


def test_a_judge_that_fails_costs_only_its_own_series(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(stack: Stack, settings: object) -> None:
        if stack.key.series_instance_uid == seeded_uid(1, "series"):
            raise ZeroDivisionError("PATIENT^NAME")

    files = node.series(1)
    with monkeypatch.context() as broken:
        broken.setattr("m3node.intake.keeper.answering.judge", judge)
        node.store(*files, *node.series(2))
        node.wait(QUIET)
    assert [manifest.stack.series_instance_uid for manifest in node.manifests] == [seeded_uid(2, "series")]
    ((key, generation, _, rejection),) = node.recorded
    assert (key.series_instance_uid, generation, rejection.reason) == (seeded_uid(1, "series"), 0, Reason.FAILED)
    assert "PATIENT" not in rejection.message
    node.store(*files)
    node.wait(QUIET)
    assert node.manifests_of(1) == 1, "sent again it is judged again"


def test_a_file_that_left_the_spool_before_it_was_read_is_passed_over(node: Node) -> None:
    files = node.series()
    node.store(*files[:5], *files[6:], close=False)
    node.keeper.step()
    path, status = node.spool(files[5])
    node.leases["PACS"].append(path, status)
    (node.layout.root / path).unlink()
    node.close()
    node.wait(QUIET)
    assert node.reasons == [(1, Reason.UNEVEN_SPACING)], "nobody waits for it"


def test_a_full_disk_postpones_the_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.store(*node.series())
    with monkeypatch.context() as full:
        full.setattr("m3node.intake.keeper.answering.write_manifest", _no_space)
        node.wait(QUIET)
    node.wait(RETRY_SECONDS - 1)
    assert node.manifests == [], "a disk that is full is left alone for a while"
    node.wait(QUIET + 1)
    assert len(node.manifests) == 1
    assert node.recorded == []


def _no_space(*_: object, **__: object) -> Path:
    raise OSError(28, "No space left on device")


def test_a_lease_stays_until_all_that_it_says_is_in_the_index(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    files = node.series()
    with monkeypatch.context() as full:
        full.setattr("m3node.intake.keeper.index.Index.append", _no_space)
        node.store(*files, urgent=files[:1])
        node.wait(QUIET)
        node.wait(QUIET)
        assert len(list(node.layout.associations.iterdir())) == 1
        node.restart()
    node.wait(QUIET)
    node.wait(QUIET)
    assert [manifest.priority for manifest in node.manifests] == ["stat"], "only the lease knows that it is urgent"
    assert list(node.layout.associations.iterdir()) == []


def test_an_index_that_the_disk_refuses_is_named_and_holds_up_only_its_own_series(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    index = node.layout.index / f"{seeded_uid(1, 'series')}.jsonl"
    index.mkdir()
    node.store(*node.series(1), *node.series(2))
    node.wait(QUIET)
    assert (node.manifests_of(1), node.manifests_of(2)) == (0, 1)
    assert f"the disk refuses (Is a directory: {index})" in caplog.text
    index.rmdir()
    node.wait(QUIET)
    node.wait(QUIET)
    assert node.manifests_of(1) == 1
