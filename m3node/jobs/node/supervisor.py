"""Keeps the node's processes alive: each in a process of its own, replaced when it dies, stopped in order.

A process that dies takes no other with it. When the supervisor itself is killed, the kernel kills its children
(``PR_SET_PDEATHSIG``), so that no half of a node lives on and holds the port.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.context import SpawnProcess

from m3node.errors import M3NodeError
from m3node.logs import describe, set_up
from m3node.metrics import counting
from m3node.process import die_with_parent
from m3node.settings import Settings

_log = logging.getLogger(__name__)

Report = Callable[[object], None]
Target = Callable[[Settings, threading.Event, Report], None]
"""Runs until the event is set; ``report`` tells the supervisor that it is ready, with whatever is to be known."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 60.0
"""A process that lived so long is replaced at once again; one that dies sooner waits twice as long each time."""
STOP_SECONDS = 15.0
"""What a process has to come to its end after SIGTERM, besides ``jobs.drain_seconds``, before it is killed."""


class StartError(M3NodeError):
    """A process that the node cannot do without did not come up."""


@dataclass(frozen=True, slots=True)
class Role:
    """A process of the node.

    Attributes
    ----------
    name : str
        What the log calls it.
    target : callable
        Its work; a module-level function, because processes are spawned.
    essential : bool
        The node does not start when this one fails before it was ready (the port is taken, for example).
    after : str
        Name of the role that must have been ready once before this one starts; empty for none.
    last : bool
        It is stopped when the others have ended, because it still has to do with what they leave.
    """

    name: str
    target: Target
    essential: bool = False
    after: str = ""
    last: bool = False


@dataclass(slots=True)
class _Child:
    role: Role
    process: SpawnProcess | None = None
    reports: connection.Connection | None = None
    started: float = 0.0
    ready: bool = False
    pause: float = 0.0
    due: float = 0.0


class Supervisor:
    """Starts the roles, replaces the ones that die and stops them in order.

    Parameters
    ----------
    roles : sequence of Role
        They start together but for those that wait for another.
    settings : Settings
        Given to every process; ``jobs.drain_seconds`` is what they have to end their work in.
    on_ready : callable
        Called with a role's name and what it reported, each time one reports; may return other settings, which
        processes that are started later get (a port that the system chose stays the same that way).
    """

    def __init__(
        self,
        roles: Sequence[Role],
        settings: Settings,
        on_ready: Callable[[str, object], Settings | None],
    ) -> None:
        self._children = [_Child(role) for role in roles]
        self._settings = settings
        self._on_ready = on_ready
        self._context = get_context("spawn")

    def run(self, stop: threading.Event) -> None:
        """Supervise until ``stop`` is set; call it from the main thread, whose end the children watch.

        Raises
        ------
        StartError
            An essential role died before it was ready.
        """
        try:
            while not stop.is_set():
                self._look()
        finally:
            self._stop_all()

    def pids(self) -> dict[str, int]:
        """Return the living processes by role."""
        return {
            child.role.name: child.process.pid
            for child in self._children
            if child.process is not None and child.process.pid is not None and child.process.is_alive()
        }

    def _start(self, child: _Child) -> None:
        reports, sending = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_main,
            args=(child.role, self._settings, sending, os.getpid()),
            name=f"m3node {child.role.name}",
        )
        try:
            with _no_interrupt_inherited():
                process.start()
        except BaseException:
            reports.close()
            raise
        finally:
            sending.close()
        child.process = process
        child.reports = reports
        child.started = time.monotonic()
        counting.process_started(child.role.name)
        _log.info("started %s (process %d)", child.role.name, process.pid)

    def _try_to_start(self, child: _Child) -> None:
        """Start a process, or try again later where the system has no room for it: the others live on."""
        try:
            self._start(child)
        except OSError as error:
            if child.role.essential and not child.ready:
                raise StartError(f"the {child.role.name} cannot be started: {error.strerror}") from error
            self._put_off(child)
            _log.error(
                "the %s cannot be started: %s; trying again in %g s", child.role.name, error.strerror, child.pause
            )

    def _look(self) -> None:
        """Wait a moment for a report, a death or a start that is due, and act on it."""
        ready = {child.role.name for child in self._children if child.ready} | {""}
        for child in self._children:
            if child.process is None and child.role.after in ready and time.monotonic() >= child.due:
                self._try_to_start(child)
        waiting: list[connection.Connection | int] = []
        for child in self._children:
            if child.process is not None:
                waiting.append(child.process.sentinel)
            if child.reports is not None:
                waiting.append(child.reports)
        happened = connection.wait(waiting, timeout=0.2) if waiting else []
        for child in self._children:
            if child.reports is not None and child.reports in happened:
                self._hear(child)
            if child.process is not None and child.process.sentinel in happened:
                self._bury(child)

    def _hear(self, child: _Child) -> None:
        assert child.reports is not None
        try:
            value = child.reports.recv()
        except EOFError:
            child.reports.close()
            child.reports = None
            return
        child.ready = True
        self._settings = self._on_ready(child.role.name, value) or self._settings

    def _bury(self, child: _Child) -> None:
        assert child.process is not None
        child.process.join()
        code = child.process.exitcode
        child.process.close()
        child.process = None
        if child.reports is not None:
            child.reports.close()
            child.reports = None
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        if child.role.essential and not child.ready:
            raise StartError(f"the {child.role.name} {how} before it was ready; the reason is in the lines above")
        if time.monotonic() - child.started >= HEALTHY_SECONDS:
            child.pause = 0.0
        self._put_off(child)
        _log.error("the %s %s; it is started again in %g s", child.role.name, how, child.pause)

    def _put_off(self, child: _Child) -> None:
        """Let the next start wait, twice as long as the one before."""
        child.pause = min(2 * child.pause, LONGEST_PAUSE) if child.pause else FIRST_PAUSE
        child.due = time.monotonic() + child.pause

    def _stop_all(self) -> None:
        """Stop what takes work in and does it, all together, and then what looks after it."""
        drain = self._settings.jobs.drain_seconds
        _end([child for child in self._children if not child.role.last], drain + STOP_SECONDS)
        _end([child for child in self._children if child.role.last], STOP_SECONDS)


@contextmanager
def _no_interrupt_inherited() -> Iterator[None]:
    """Start processes with SIGINT blocked.

    Ctrl-C reaches the whole group, and who stops when is the supervisor's to say. Blocked from before they exist,
    because a process that is still importing has no handler yet.
    """
    # Its start unblocks SIGINT behind it; so it is started first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(children: Sequence[_Child], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for child in children:
        if child.process is not None:
            child.process.terminate()
    for child in children:
        if child.process is None:
            continue
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            _log.warning("the %s did not stop within %g s and is killed", child.role.name, seconds)
            child.process.kill()
            child.process.join()
        _log.info("stopped %s", child.role.name)
        child.process.close()
        child.process = None


def stop_on_signals(stop: threading.Event, *signals: signal.Signals) -> None:
    """Set ``stop`` when one of the signals arrives.

    The event is set by a thread: the handler may run while the main thread holds the event's own lock.
    """

    def handler(_number: int, _frame: object) -> None:
        threading.Thread(target=stop.set, daemon=True).start()

    for number in signals:
        signal.signal(number, handler)


def _main(role: Role, settings: Settings, reports: connection.Connection, parent: int) -> None:
    """Run one role in its own process."""
    stop = threading.Event()
    stop_on_signals(stop, signal.SIGTERM)
    die_with_parent(parent)
    set_up(settings.log, role.name)
    counting.start(settings, role.name)
    try:
        role.target(settings, stop, reports.send)
    except M3NodeError as error:
        _log.error("%s", error)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - a process boundary: the supervisor starts it again
        _log.critical("ended by an unexpected error: %s", describe(error))
        if isinstance(error, OSError):
            _log.critical("%s", error.strerror)
        sys.exit(1)
