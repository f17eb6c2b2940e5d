"""Pixels that are not needed any more go, and what was known of them stays known."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeping import QUIET, Node, changed, liver_seg
from m3node.evaluation.ct_writer import seeded_uid
from m3node.identity import DEVICE_UID
from m3node.intake.keeper import keeper
from m3node.intake.keeper.index import Index, Settled
from m3node.intake.keeper.keeper import PURGE_SECONDS, TURN_SECONDS
from m3node.intake.keeper.purging import Held, purge
from m3node.rejection import Reason


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def files(node: Node) -> tuple[Path, ...]:
    """A series of twelve slices that was answered and removed; a thirteenth was not sent yet."""
    made = node.series(1, slices=13)
    node.store(*made[:12])
    node.wait(QUIET)
    node.purge(1)
    return made


def settled(node: Node) -> Settled | None:
    return Index(node.layout.index).settled(seeded_uid(1, "series"))


def test_the_files_go_and_the_answer_and_the_headers_stay(node: Node, files: tuple[Path, ...]) -> None:
    assert node.files() == []
    assert len(node.manifests) == 1
    record = node.index()
    assert (len(record.purged), record.headers, record.files) == (12, {}, 0)
    assert {header.sop_instance_uid for header in record.purged.values()} == {
        header.sop_instance_uid for header in node.manifests[0].instances
    }
    assert settled(node) == Settled(0, unfit=False, purged=True)


def test_only_what_is_named_goes_and_nothing_that_waits_for_its_answer(node: Node) -> None:
    node.store(*node.series(1), *node.series(2))
    node.wait(QUIET)
    node.store(*node.series(3), close=False)
    node.purge(2, 3)
    assert [len(node.files(seed)) for seed in (1, 2, 3)] == [12, 0, 12]


@pytest.mark.parametrize("restart", [False, True], ids=["running", "after a restart"])
def test_an_identical_resend_is_taken_makes_no_job_and_goes_again(
    node: Node, files: tuple[Path, ...], restart: bool
) -> None:
    node.store(*files[:12])
    assert len(node.files()) == 12, "a receiver acknowledges it as it would any other"
    if restart:
        node.restart()
    node.wait(QUIET)
    assert node.files() == []
    assert (len(node.manifests), node.recorded, node.keeper.waiting) == (1, [], frozenset())
    assert settled(node) == Settled(0, unfit=False, purged=True)


def test_an_identical_resend_of_which_the_lease_tells_twice_is_no_trouble(
    node: Node, files: tuple[Path, ...], caplog: pytest.LogCaptureFixture
) -> None:
    node.store(files[0], close=False)
    (path,) = node.layout.spool.glob("*/*/*.dcm")
    node.keeper.step()
    assert not path.exists()
    node.leases["PACS"].append(path.relative_to(node.layout.root).as_posix(), "duplicate")
    node.close()
    node.wait(QUIET)
    assert (len(node.manifests), node.recorded, node.keeper.waiting) == (1, [], frozenset())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_slice_that_comes_late_gets_a_reason_and_no_part_of_the_series_is_answered(
    node: Node, files: tuple[Path, ...]
) -> None:
    node.store(*files)
    node.wait(QUIET)
    assert len(node.manifests) == 1
    ((key, generation, _, rejection),) = node.recorded
    assert (key.series_instance_uid, generation, rejection.reason) == (
        seeded_uid(1, "series"),
        0,
        Reason.EARLIER_PURGED,
    )
    assert "1 slices came after its earlier slices were purged" in rejection.message
    assert len(node.files()) == 1, "what is new is kept, the rest goes again"
    node.store(files[12])
    node.wait(QUIET)
    assert len(node.recorded) == 1, "the same slice is not judged twice"
    node.purge(1)
    node.store(*files)
    node.wait(QUIET)
    assert (node.files(), len(node.recorded), len(node.manifests)) == ([], 1, 1)


def test_a_revision_of_what_is_gone_cannot_be_compared_and_counts_as_late(node: Node, files: tuple[Path, ...]) -> None:
    revised = changed(files[3], "revised.dcm", lambda ds: ds.update({"KVP": "100"}))
    node.store(revised)
    node.wait(QUIET)
    assert node.reasons == [(0, Reason.EARLIER_PURGED)]
    node.store(files[3], revision="abcdef12")  # the first bytes again, now beside the others
    node.wait(QUIET)
    assert len(node.files()) == 1
    assert len(node.manifests) == 1
    assert len({digest for _, _, digest, _ in node.recorded}) == 1, "recorded twice, written down once"


@settings(max_examples=13, deadline=None)
@given(killed_after=st.integers(0, 12))
def test_a_removal_that_was_killed_is_finished_by_the_next_start(
    tmp_path_factory: pytest.TempPathFactory, killed_after: int
) -> None:
    node = Node(tmp_path_factory.mktemp("node"))
    made = node.series()
    node.store(*made)
    node.wait(QUIET)
    unlink = Path.unlink
    left = iter(range(killed_after))

    def killed(path: Path, missing_ok: bool = False) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        if killed_after < 12:
            with pytest.raises(KeyboardInterrupt):
                node.purge(1)
        else:
            node.purge(1)
    node.restart()
    node.wait(QUIET)
    assert node.files() == []
    assert (len(node.manifests), node.recorded, node.keeper.waiting) == (1, [], frozenset())
    node.store(*made)
    node.wait(QUIET)
    assert (node.files(), len(node.manifests)) == ([], 1)


def test_the_memory_is_on_disk_before_the_first_file_goes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    done: list[str] = []
    fsync, unlink = os.fsync, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (done.append("unlink"), unlink(path, **options)))
    node.purge(1)
    index = node.layout.index
    assert done[:3] == [str(index / f"{seeded_uid(1, 'series')}.jsonl"), str(index), "unlink"]


def test_a_removal_that_the_disk_refuses_forgets_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    with monkeypatch.context() as broken:
        broken.setattr(Index, "append", _refuse(errno.EIO))
        node.purge(1)
    assert len(node.files()) == 12
    node.restart()
    node.wait(QUIET)
    assert (len(node.index().headers), settled(node), node.keeper.waiting) == (12, Settled(12, False), frozenset())
    node.purge(1)
    assert node.files() == []


def test_a_disk_without_room_for_a_line_is_made_room_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.store(*node.series())
    node.wait(QUIET)
    append = Index.append

    def when_one_is_gone(index: Index, series: str, facts: Iterable[dict[str, Any]], *, durable: bool = False) -> None:
        if len(node.files()) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(index, series, facts, durable=durable)

    monkeypatch.setattr(Index, "append", when_one_is_gone)
    node.purge(1)
    assert (node.files(), len(node.index().purged)) == ([], 12)


def test_a_slice_that_has_just_arrived_keeps_its_series(node: Node) -> None:
    made = node.series(1, slices=13)
    node.store(*made[:12])
    node.wait(QUIET)
    node.disposable = [seeded_uid(1, "series")]
    node.spool(made[12])  # linked, and its line in the lease is not written yet
    node.now += PURGE_SECONDS
    node.keeper.step()
    node.disposable = []
    assert len(node.files()) == 13
    node.wait(QUIET)
    assert [len(manifest.slices) for manifest in node.manifests] == [12, 13]
    assert node.recorded == []


@pytest.mark.parametrize("late_seg", [False, True])
def test_a_seg_for_pixels_that_are_gone_is_recorded_only(tmp_path: Path, late_seg: bool) -> None:
    node = Node(tmp_path, late_seg=late_seg)
    made = node.series()
    node.store(*made)
    node.wait(QUIET)
    node.purge(1)
    node.store(liver_seg(made))
    node.wait(QUIET)
    assert (len(node.manifests), node.recorded, node.keeper.waiting) == (1, [], frozenset())
    assert settled(node) == Settled(0, unfit=False, purged=True)
    assert len(node.index().segs) == 1


def test_what_gets_another_generation_while_pixels_are_removed_keeps_its_own_and_its_seg(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*args: Any) -> bool:
        node.now += TURN_SECONDS * 2
        return purge(*args)

    monkeypatch.setattr(keeper, "purge", slowly)
    late = node.series(2, slices=13)
    node.store(*node.series(1), *late[:12], liver_seg(late))
    node.wait(QUIET)
    node.disposable = [seeded_uid(1, "series"), seeded_uid("seg", "series"), seeded_uid(2, "series")]
    node.now += PURGE_SECONDS
    node.keeper.step()
    assert node.files(1) == [], "the first of them has gone"
    node.store(late[12])
    node.disposable = []
    for _ in range(5):
        node.wait(QUIET)
    (second,) = (manifest for manifest in node.manifests if manifest.generation == 2)
    spooled = [node.layout.spool / item.path for item in (*second.instances, *second.liver_segs)]
    assert [path.exists() for path in spooled] == [True] * 14


def test_who_says_what_may_go_hears_of_what_is_not_answered_yet(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, float]] = []

    def note(held: Sequence[Held]) -> Iterable[str]:
        asked.append({item.series: item.answered_at for item in held})
        return ()

    monkeypatch.setattr(node.keeper, "_disposable", note)
    node.store(*node.series(1))
    node.wait(QUIET)
    node.store(*node.series(2), close=False)
    node.wait(PURGE_SECONDS)
    open_series = seeded_uid(2, "series")
    assert {series for series, at in asked[-1].items() if math.isinf(at)} == {open_series}
    assert len(asked[-1]) == 2


def test_a_seg_whose_file_is_gone_is_no_input_of_a_later_generation(node: Node) -> None:
    made = node.series(1, slices=13)
    node.store(*made[:12], liver_seg(made))
    node.wait(QUIET)
    node.disposable = [seeded_uid("seg", "series")]
    node.wait(PURGE_SECONDS)
    node.store(made[12])
    node.wait(QUIET)
    assert [len(manifest.liver_segs) for manifest in node.manifests] == [1, 0]


def test_our_own_objects_go_too_and_are_known_when_they_come_back(node: Node) -> None:
    made = node.series()
    own = changed(
        made[0], "own.dcm", lambda ds: ds.update({"SOPInstanceUID": seeded_uid("x"), "DeviceUID": DEVICE_UID})
    )
    for _ in range(2):
        node.store(own)
        node.wait(QUIET)
        assert len(node.files()) == 1
        node.purge(1)
        assert node.files() == []
    assert (node.manifests, node.recorded) == ([], [])


def _refuse(code: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse
