"""A process that dies is replaced, takes no other with it, and none outlives the supervisor."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m3node.errors import ConfigError
from m3node.jobs.node import supervisor
from m3node.jobs.node.supervisor import Report, Role, StartError, Supervisor
from m3node.settings import JobSettings, Settings
from waiting import wait_for


def stays(settings: Settings, stop: threading.Event, report: Report) -> None:
    report(os.getpid())
    stop.wait()
    (settings.data_dir / "ended in order").touch()


def dies_once(settings: Settings, stop: threading.Event, report: Report) -> None:
    mark = settings.data_dir / "died"
    if not mark.exists():
        mark.touch()
        raise ValueError("PATIENT^NAME")
    report(os.getpid())
    stop.wait()


def refuses(settings: Settings, stop: threading.Event, report: Report) -> None:
    raise ConfigError("the port is taken")


class Running:
    """A supervisor in a thread of the test's process."""

    def __init__(self, folder: Path, *roles: Role) -> None:
        self.reports: list[tuple[str, object]] = []
        self.stop = threading.Event()
        settings = Settings(data_dir=folder, jobs=JobSettings(drain_seconds=0.0))
        self.supervisor = Supervisor(roles, settings, self._hear)
        self.thread = threading.Thread(target=self.supervisor.run, args=(self.stop,))
        self.thread.start()

    def _hear(self, name: str, value: object) -> None:
        self.reports.append((name, value))

    def reported(self, name: str) -> list[object]:
        return [value for its, value in self.reports if its == name]

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*roles: Role) -> Running:
        running.append(Running(tmp_path, *roles))
        return running[-1]

    yield begin
    for one in running:
        one.end()


def test_a_killed_process_is_replaced_and_the_other_lives_on(start: Callable[..., Running]) -> None:
    node = start(Role("one", stays), Role("two", stays))
    wait_for(lambda: len(node.reports) == 2)
    (first,), (other,) = node.reported("one"), node.reported("two")
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(node.reported("one")) == 2)
    assert node.reported("one")[1] != first
    assert node.supervisor.pids()["two"] == other


def test_a_process_that_fails_is_started_again(start: Callable[..., Running], tmp_path: Path) -> None:
    node = start(Role("one", dies_once))
    wait_for(lambda: node.reports)
    assert (tmp_path / "died").exists()


def test_a_process_may_wait_until_another_is_ready(start: Callable[..., Running]) -> None:
    node = start(Role("late", stays, after="early"), Role("early", dies_once))
    wait_for(lambda: len(node.reports) == 2)
    assert [name for name, _ in node.reports] == ["early", "late"]


def test_an_unexpected_error_is_named_without_its_words(
    start: Callable[..., Running], capfd: pytest.CaptureFixture[str]
) -> None:
    node = start(Role("one", dies_once))
    wait_for(lambda: node.reports)
    shown = capfd.readouterr().err
    assert "ValueError at" in shown
    assert "PATIENT" not in shown


def test_every_process_ends_in_order(start: Callable[..., Running], tmp_path: Path) -> None:
    node = start(Role("one", stays))
    wait_for(lambda: node.reports)
    node.end()
    assert (tmp_path / "ended in order").exists()
    assert node.supervisor.pids() == {}


def ends_late(settings: Settings, stop: threading.Event, report: Report) -> None:
    report(os.getpid())
    stop.wait()
    time.sleep(0.3)
    (settings.data_dir / "early ended").touch()


def looks_back(settings: Settings, stop: threading.Event, report: Report) -> None:
    report(os.getpid())
    stop.wait()
    if (settings.data_dir / "early ended").exists():
        (settings.data_dir / "last ended last").touch()


def test_who_looks_after_the_others_ends_when_they_have(start: Callable[..., Running], tmp_path: Path) -> None:
    node = start(Role("keeper", looks_back, last=True), Role("worker", ends_late))
    wait_for(lambda: len(node.reports) == 2)
    node.end()
    assert (tmp_path / "last ended last").exists()


def test_work_at_hand_has_the_drain_seconds_to_end_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.0)
    stop = threading.Event()
    settings = Settings(data_dir=tmp_path, jobs=JobSettings(drain_seconds=60.0))
    node = Supervisor((Role("worker", ends_late),), settings, lambda *_: stop.set())
    node.run(stop)
    assert (tmp_path / "early ended").exists()


def test_without_an_essential_process_the_node_does_not_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = Supervisor(
        (Role("acceptor", refuses, essential=True), Role("other", stays)),
        Settings(data_dir=tmp_path),
        lambda *_: None,
    )
    with caplog.at_level(logging.INFO), pytest.raises(StartError, match="acceptor ended with status 1"):
        node.run(threading.Event())
    assert node.pids() == {}


def test_a_process_that_keeps_dying_is_started_more_and_more_seldom_down_to_a_limit(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.3)
    start(Role("one", refuses))

    def pauses() -> list[str]:
        return re.findall(r"the one ended with status 1; it is started again in (\S+) s", caplog.text)

    wait_for(lambda: len(pauses()) >= 4)
    assert pauses()[:4] == ["0.1", "0.2", "0.3", "0.3"]


def test_a_process_that_lived_for_long_is_replaced_as_quickly_as_the_first_time(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(supervisor, "HEALTHY_SECONDS", 0.0)
    start(Role("one", refuses))
    wait_for(lambda: caplog.text.count("it is started again in") >= 3)
    assert set(re.findall(r"it is started again in (\S+) s", caplog.text)) == {"0.1"}


def test_a_process_for_which_the_system_has_no_room_is_started_when_it_has_and_the_others_live_on(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    node = start(Role("one", stays), Role("two", stays))
    wait_for(lambda: len(node.reports) == 2)
    (first,), (other,) = node.reported("one"), node.reported("two")
    assert isinstance(first, int)
    launch = supervisor.SpawnProcess.start
    left = [1, 2]

    def no_room(process: supervisor.SpawnProcess) -> None:
        if left:
            left.pop()
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        launch(process)

    monkeypatch.setattr(supervisor.SpawnProcess, "start", no_room)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(node.reported("one")) == 2)
    assert left == []
    assert node.supervisor.pids()["two"] == other
    assert "the one cannot be started: Resource temporarily unavailable; trying again in 0.2 s" in caplog.text


def test_an_essential_process_for_which_the_system_has_no_room_keeps_the_node_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(process: supervisor.SpawnProcess) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(supervisor.SpawnProcess, "start", no_room)
    node = Supervisor((Role("acceptor", stays, essential=True),), Settings(data_dir=tmp_path), lambda *_: None)
    with pytest.raises(StartError, match="the acceptor cannot be started: Cannot allocate memory"):
        node.run(threading.Event())


KILLED = """
import sys, threading
sys.path[:0] = {tests!r}
from pathlib import Path
from test_supervisor import stays
from m3node.jobs.node.supervisor import Role, Supervisor
from m3node.settings import Settings

if __name__ == "__main__":
    Supervisor((Role("one", stays),), Settings(data_dir=Path({folder!r})), lambda _, pid: print(pid, flush=True)).run(
        threading.Event())
"""


def test_no_process_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    here = Path(__file__).parent
    script.write_text(KILLED.format(tests=[str(here), str(here.parent)], folder=str(tmp_path)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not lives(child))
    assert not (tmp_path / "ended in order").exists()


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def ignores(settings: Settings, stop: threading.Event, report: Report) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(os.getpid())
    while True:
        time.sleep(60)


def test_a_process_that_does_not_stop_is_killed(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    node = start(Role("one", stays), Role("two", ignores))
    wait_for(lambda: len(node.reports) == 2)
    (pid,) = node.reported("two")
    node.end()
    assert not Path(f"/proc/{pid}").exists()
