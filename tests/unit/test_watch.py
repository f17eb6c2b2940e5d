"""The watched folder: what is dropped is answered once, wherever a crash falls, and moves under a name of ours."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from m3node.intake.folder.settling import Settling, fingerprint
from m3node.intake.folder.watch import CRASH_LIMIT, FolderWatch, Verdict, watch_folder
from m3node.rejection import Reason, Rejection

SETTLE = 5.0
ZIP = b"PK\x03\x04 and so on"


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Watched:
    """A watched folder, a clock that stands still until told, and a process that writes down what it was given."""

    def __init__(self, root: Path) -> None:
        self.folder, self.out = root / "in", root / "out"
        self.now = 100.0
        self.jobs: list[dict[str, bytes]] = []
        self.then: Callable[[], Verdict] = lambda: Verdict(1, {}, ())
        self.start()

    def start(self) -> None:
        self.watch = FolderWatch(self.folder, self.out, SETTLE, self.process, clock=lambda: self.now)

    def process(self, source: Path, target: Path) -> Verdict:
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        self.jobs.append({path.relative_to(source.parent).as_posix(): path.read_bytes() for path in files})
        assert target.parent == self.out
        return self.then()

    def drop(self, name: str, content: bytes = b"x") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def step(self) -> int:
        return self.watch.step(threading.Event())

    def settle(self) -> None:
        self.step()
        self.now += SETTLE
        self.step()

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name not in ("working", "done", "rejected"))

    def aside(self, name: str) -> list[Path]:
        return sorted((self.folder / name).iterdir())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_folder_is_taken_when_it_has_not_changed_for_the_settle_time(watched: Watched) -> None:
    watched.drop("MUELLER^HANS/a.dcm")
    watched.step()
    watched.now += SETTLE - 0.1
    watched.drop("MUELLER^HANS/sub/b.dcm")
    watched.step()
    watched.now += SETTLE - 0.1
    assert watched.step() == 0
    watched.now += 0.2
    assert watched.step() == 1
    assert watched.jobs == [{"input/a.dcm": b"x", "input/sub/b.dcm": b"x"}]
    assert watched.left() == []


def test_a_file_that_grows_is_not_settled(tmp_path: Path) -> None:
    now = 0.0
    settling = Settling(SETTLE, lambda: now)
    path = tmp_path / "a"
    for size in range(1, 4):
        path.write_bytes(b"x" * size)
        assert settling.settled([path]) == ()
        now += SETTLE
    assert settling.settled([path]) == (path,)


@pytest.mark.parametrize("name", ["study", "study/a"])
def test_what_is_written_over_at_its_size_is_not_settled(tmp_path: Path, name: str) -> None:
    now = 0.0
    settling = Settling(SETTLE, lambda: now)
    path = tmp_path / "study" / "a"
    path.parent.mkdir()
    for modified in (1_000.0, 2_000.0, 3_000.0):
        path.write_bytes(b"x")
        os.utime(path, (modified, modified))
        os.utime(path.parent, (500.0, 500.0))
        assert settling.settled([tmp_path / name]) == ()
        now += SETTLE
    assert settling.settled([tmp_path / name]) == (tmp_path / name,)


def test_an_empty_folder_is_waited_for(watched: Watched) -> None:
    (watched.folder / "soon").mkdir()
    watched.settle()
    assert watched.left() == ["soon"]
    assert watched.jobs == []


def test_a_zip_is_a_job_of_its_own_and_loose_files_are_one_together(watched: Watched) -> None:
    watched.drop("study.zip", ZIP)
    watched.drop("study without a suffix", ZIP)
    watched.drop("IM0001", b"1")
    watched.drop("IM0002", b"2")
    watched.settle()
    assert sorted(watched.jobs, key=str) == sorted(
        [{"input.zip": ZIP}, {"input.zip": ZIP}, {"input/000001.dcm": b"1", "input/000002.dcm": b"2"}], key=str
    )


def test_loose_files_wait_for_the_last_of_them(watched: Watched) -> None:
    watched.drop("a.dcm")
    watched.settle()
    assert len(watched.jobs) == 1
    watched.drop("b.dcm")
    watched.step()
    watched.now += SETTLE - 1
    watched.drop("c.dcm")
    watched.step()
    watched.now += 1
    watched.step()
    assert len(watched.jobs) == 1
    watched.now += SETTLE
    watched.step()
    assert len(watched.jobs[1]) == 2


def test_what_appears_during_a_job_is_another_job(watched: Watched) -> None:
    def meanwhile() -> Verdict:
        if len(watched.jobs) == 1:
            watched.drop("late.dcm", b"late")
        return Verdict(1, {}, ())

    watched.then = meanwhile
    watched.drop("early.dcm", b"early")
    watched.settle()
    watched.settle()
    assert watched.jobs == [{"input/000001.dcm": b"early"}, {"input/000001.dcm": b"late"}]


def test_an_answered_input_moves_to_done_under_a_name_of_ours(watched: Watched) -> None:
    watched.drop("MUELLER^HANS/a.dcm", b"pixels")
    watched.settle()
    (job,) = watched.aside("done")
    assert "MUELLER" not in job.name
    assert (job / "input" / "a.dcm").read_bytes() == b"pixels"
    reason = json.loads((job / "reason.json").read_text())
    assert (reason["processed"], reason["results"]) == (1, str(watched.out / job.name))
    assert "1 stack was answered" in (job / "reason.txt").read_text()
    assert sorted(path.name for path in job.iterdir()) == ["input", "reason.json", "reason.txt"]


def test_an_input_without_anything_usable_moves_to_rejected_with_the_reason(watched: Watched) -> None:
    rejection = Rejection(Reason.NOT_DICOM, "no DICOM file", "x")
    watched.then = lambda: Verdict(0, {"stacks": []}, (rejection,))
    watched.drop("a.txt")
    watched.settle()
    (job,) = watched.aside("rejected")
    reason = json.loads((job / "reason.json").read_text())
    assert reason["reasons"] == [{"reason": "not-dicom", "message": "no DICOM file", "subject": "x"}]
    assert "no DICOM file" in (job / "reason.txt").read_text()


def test_litter_hidden_files_and_links_are_left_alone(watched: Watched, tmp_path: Path) -> None:
    watched.drop(".part")
    watched.drop("Thumbs.db")
    (watched.folder / "link").symlink_to(tmp_path / "elsewhere")
    watched.settle()
    assert watched.left() == [".part", "Thumbs.db", "link"]
    assert watched.jobs == []


@pytest.mark.parametrize("moment", ["process", "reason", "move", "claim"])
def test_a_crash_at_any_moment_loses_no_input(watched: Watched, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise Killed

    watched.drop("a.dcm", b"1")
    watched.drop("b.dcm", b"2")
    watched.step()
    watched.now += SETTLE
    with monkeypatch.context() as crash:
        if moment == "process":
            crash.setattr(watched, "then", die)
        elif moment == "reason":
            crash.setattr("m3node.intake.folder.watch._write_reason", die)
        else:
            crash.setattr(Path, "rename", _die_at(moment, Path.rename))
        with pytest.raises(Killed):
            watched.step()
    watched.start()
    watched.settle()
    (job,) = watched.aside("done")
    assert sorted(path.read_bytes() for path in (job / "input").iterdir()) == [b"1", b"2"]
    assert watched.jobs[-1] == {"input/000001.dcm": b"1", "input/000002.dcm": b"2"}
    assert watched.aside("working") == []
    assert len(watched.jobs) == (2 if moment in ("process", "reason") else 1)


def _die_at(moment: str, rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    def wrapped(self: Path, target: Path) -> Path:
        if moment == "claim" and target.name == "000002.dcm":
            raise Killed
        if moment == "move" and target.parent.name == "done":
            raise Killed
        return rename(self, target)

    return wrapped


@pytest.mark.parametrize("name", ["study", "study.zip"])
def test_a_crash_while_a_folder_or_zip_is_claimed_puts_it_back(
    watched: Watched, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.drop("study/a.dcm", b"1") if name == "study" else watched.drop(name, ZIP)
    watched.step()
    watched.now += SETTLE

    def die(self: Path, target: Path) -> Path:
        if self.name.startswith(".claiming-"):
            raise Killed
        os.rename(self, target)
        return target

    with monkeypatch.context() as crash:
        crash.setattr(Path, "rename", die)
        with pytest.raises(Killed):
            watched.step()
    watched.start()
    watched.settle()
    assert watched.jobs == [{"input/a.dcm": b"1"} if name == "study" else {"input.zip": ZIP}]


def test_a_job_that_takes_its_process_down_again_and_again_is_set_aside(watched: Watched) -> None:
    def die() -> Verdict:
        raise Killed

    watched.then = die
    watched.drop("a.dcm")
    watched.step()
    watched.now += SETTLE
    for _ in range(CRASH_LIMIT):
        with pytest.raises(Killed):
            watched.step()
    watched.step()
    (job,) = watched.aside("rejected")
    assert json.loads((job / "reason.json").read_text())["reasons"][0]["reason"] == "failed"


def test_a_full_disk_postpones_a_job_without_counting_against_it(watched: Watched) -> None:
    def full() -> Verdict:
        raise OSError(errno.ENOSPC, "No space left on device")

    watched.then = full
    watched.drop("a.dcm")
    watched.step()
    watched.now += SETTLE
    for _ in range(2 * CRASH_LIMIT):
        with pytest.raises(OSError, match="No space"):
            watched.step()
    watched.then = lambda: Verdict(1, {}, ())
    watched.step()
    assert len(watched.aside("done")) == 1


class SilentObserver:
    """What a network file system is: it takes the wish and sends no event, or refuses it."""

    def __init__(self, refusal: OSError | None = None) -> None:
        self.refusal = refusal

    def schedule(self, *_: object, **__: object) -> None: ...

    def start(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def stop(self) -> None: ...

    def join(self) -> None: ...


@pytest.mark.parametrize("events", ["as they come", "none", "refused"])
def test_the_loop_finds_what_is_dropped_and_ends_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: str
) -> None:
    if events != "as they come":
        refusal = OSError(errno.ENOSPC, "inotify watch limit reached") if events == "refused" else None
        monkeypatch.setattr("m3node.intake.folder.watch.Observer", lambda: SilentObserver(refusal))
    stop = threading.Event()
    answered: list[Path] = []

    def process(source: Path, target: Path) -> Verdict:
        answered.append(source)
        stop.set()
        return Verdict(1, {}, ())

    watch = FolderWatch(tmp_path / "in", tmp_path / "out", 0.1, process)
    loop = threading.Thread(target=watch_folder, args=(watch, tmp_path / "in", 0.1, stop))
    loop.start()
    (tmp_path / "in" / "a.dcm").write_bytes(b"x")
    loop.join(timeout=30)
    assert not loop.is_alive()
    assert len(answered) == 1


def test_what_is_gone_has_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "gone") is None
