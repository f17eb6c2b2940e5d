"""The acceptor: owns the ports, counts associations, and passes each accepted socket to the least busy receiver.

One small process, so that limits have one place and the load is even whatever the kernel thinks (decision 10 of the
design). It reads nothing from the network. A receiver that dies is replaced; its associations end with it, and their
senders send again what was not acknowledged.
"""

from __future__ import annotations

import logging
import multiprocessing
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from m3node.disk import Watermark
from m3node.errors import ConfigError
from m3node.intake.receive.ports import Ports
from m3node.intake.receive.receiver import (
    FINISHED,
    READY,
    REFUSE,
    REFUSE_TLS,
    REFUSED,
    SERVE,
    SERVE_TLS,
    STOP,
    receive,
)
from m3node.intake.receive.spool import remove_leftovers
from m3node.layout import DataLayout
from m3node.settings import ListenerSettings, Settings

LOGGER = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RESTART_SECONDS = 1.0
"""A receiver that dies right after its start is not started again sooner."""

ABORT_SECONDS = 5.0
"""What a receiver has to end in after it has aborted the associations that are left."""

_BACKLOG = 128
_REFUSALS_AT_ONCE = 64
"""Connections beyond the limit that hear why; still more are closed at once."""


@dataclass(frozen=True, slots=True)
class _Door:
    """A port that is listened on."""

    socket: socket.socket
    tls: bool


@dataclass(slots=True)
class _Worker:
    """One receiver process and what the acceptor knows of it."""

    number: int
    process: multiprocessing.process.BaseProcess
    channel: socket.socket
    started_at: float
    ready: bool = False
    load: int = 0
    refusals: int = 0


@dataclass(slots=True)
class _Pool:
    """The receiver processes."""

    settings: Settings
    selector: selectors.BaseSelector
    workers: list[_Worker] = field(default_factory=list)
    due: dict[int, float] = field(default_factory=dict)

    def start(self, number: int) -> None:
        """Start a receiver."""
        # Spawned, not forked: the process that calls us may have threads, and a fork would copy their locks.
        context = multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = context.Process(
            target=receive, args=(self.settings, theirs, number), name=f"m3node-receiver-{number}", daemon=False
        )
        process.start()
        theirs.close()  # else a dead receiver's channel would not end
        ours.setblocking(False)
        worker = _Worker(number=number, process=process, channel=ours, started_at=time.monotonic())
        self.workers.append(worker)
        self.selector.register(ours, selectors.EVENT_READ, worker)

    def start_due(self) -> None:
        """Start the receivers whose turn has come."""
        now = time.monotonic()
        for number in [number for number, at in self.due.items() if at <= now]:
            del self.due[number]
            self.start(number)

    def listen_to(self, worker: _Worker) -> None:
        """Take in what a receiver says, or that it is gone."""
        while True:
            try:
                message = worker.channel.recv(64)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if message == READY:
                worker.ready = True
            elif message == FINISHED:
                worker.load -= 1
            elif message == REFUSED:
                worker.refusals -= 1
            elif not message:
                self._bury(worker)
                return

    def _bury(self, worker: _Worker) -> None:
        self.selector.unregister(worker.channel)
        worker.channel.close()
        self.workers.remove(worker)
        worker.process.join(timeout=1.0)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        LOGGER.error(
            "receiver %d died (exit code %s) with %d associations open; a new one is started",
            worker.number,
            worker.process.exitcode,
            worker.load,
        )
        remove_leftovers(DataLayout(self.settings.data_dir.absolute()))
        self.due[worker.number] = worker.started_at + _RESTART_SECONDS

    @property
    def load(self) -> int:
        """Associations open in all receivers."""
        return sum(worker.load for worker in self.workers)

    @property
    def refusals(self) -> int:
        """Connections that are being told that there is no room; they take none."""
        return sum(worker.refusals for worker in self.workers)

    @property
    def complete(self) -> bool:
        """Whether all receivers can take associations."""
        return len(self.workers) == self.settings.listener.receivers and all(worker.ready for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Whether any receiver can take an association."""
        return any(worker.ready for worker in self.workers)

    def give(self, connection: socket.socket, message: bytes) -> None:
        """Pass a connection to the least busy receiver; to another when that one is just dying."""
        for worker in sorted((w for w in self.workers if w.ready), key=lambda w: w.load):
            try:
                socket.send_fds(worker.channel, [message], [connection.fileno()])
            except OSError:
                continue  # its end of the channel is closed or full
            if message in (REFUSE, REFUSE_TLS):
                worker.refusals += 1
            else:
                worker.load += 1
            return
        LOGGER.warning("no receiver could take a connection; it is closed and the sender has to try again")

    def stop(self) -> None:
        """End all receivers; open associations have ``jobs.drain_seconds`` to end by themselves."""
        for worker in self.workers:
            try:
                worker.channel.setblocking(True)
                worker.channel.send(STOP)
            except OSError:
                continue  # dead already
        deadline = time.monotonic() + self.settings.jobs.drain_seconds + ABORT_SECONDS
        for worker in self.workers:
            worker.process.join(timeout=max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                LOGGER.warning("receiver %d did not end in time and is killed", worker.number)
                worker.process.kill()
                worker.process.join()
            worker.channel.close()


def serve_associations(
    settings: Settings, *, ready: Callable[[Ports], None] | None = None, stop: threading.Event
) -> None:
    """Listen until told to stop. Needs a process that may have children (not a daemonic one of multiprocessing).

    Parameters
    ----------
    settings : Settings
        The whole tree; ``listener`` says where and whom. Port 0 takes a free one.
    ready : callable, optional
        Called once, with the ports, when associations can be served.
    stop : threading.Event
        Set by a signal handler or another thread. No new association is taken from then on; open ones have
        ``jobs.drain_seconds`` to end, then they are aborted.

    Raises
    ------
    ConfigError
        An address cannot be bound.
    """
    layout = DataLayout(settings.data_dir.absolute())
    layout.create()
    remove_leftovers(layout)
    if not settings.listener.callers:
        LOGGER.warning("listener.callers is empty: every association will be rejected")
    with selectors.DefaultSelector() as selector, _bound(settings.listener) as doors:
        ports = {door.tls: door.socket.getsockname()[1] for door in doors}
        bound = Ports(plain=ports.get(False), tls=ports.get(True))
        pool = _Pool(settings, selector)
        try:
            for number in range(settings.listener.receivers):
                pool.start(number)
            room = Watermark(layout.root, settings.disk.refuse_free_mb)
            _run(pool, doors, room, stop, lambda: ready and ready(bound))
        finally:
            for door in doors:
                door.socket.close()
            pool.stop()


def _run(
    pool: _Pool,
    doors: Sequence[_Door],
    room: Watermark,
    stop: threading.Event,
    ready: Callable[[], object],
) -> None:
    announced = accepting = False
    while not stop.is_set():
        # At the start until all receivers are there, and later when none is, connections wait in the kernel's backlog.
        if (pool.ready if announced else pool.complete) != accepting:
            accepting = not accepting
            for door in doors:
                if accepting:
                    pool.selector.register(door.socket, selectors.EVENT_READ, door)
                else:
                    pool.selector.unregister(door.socket)
        if not announced and pool.complete:
            announced = True
            ready()
        for key, _ in pool.selector.select(timeout=_POLL_SECONDS):
            if isinstance(key.data, _Door):
                _accept(pool.settings.listener, pool, key.data)
            else:
                pool.listen_to(key.data)
        pool.start_due()
        _tell_of_room(room)


def _tell_of_room(room: Watermark) -> None:
    crossed = room.crossed()
    if crossed:
        LOGGER.error(
            "less than %g MB are free (disk.refuse_free_mb): associations are rejected and stores answered 0xA700 "
            "until there is room again",
            room.mb,
        )
    elif crossed is False:
        LOGGER.warning("there is room on the disk again: associations are accepted")


def _accept(listener: ListenerSettings, pool: _Pool, door: _Door) -> None:
    try:
        connection, _ = door.socket.accept()
    except OSError as error:
        LOGGER.warning("cannot accept a connection: %s", error.strerror)
        time.sleep(_POLL_SECONDS)  # out of file handles, for one: it waits in the backlog and would be tried at once
        return
    with connection:  # the receiver has its own copy of the handle
        if pool.load < listener.max_associations:
            pool.give(connection, SERVE_TLS if door.tls else SERVE)
        elif pool.refusals < _REFUSALS_AT_ONCE:
            pool.give(connection, REFUSE_TLS if door.tls else REFUSE)


@contextmanager
def _bound(listener: ListenerSettings) -> Iterator[tuple[_Door, ...]]:
    with ExitStack() as sockets:
        doors = []
        if listener.plain:
            doors.append(_Door(sockets.enter_context(_bind(listener.host, listener.port, "listener.port")), tls=False))
        if listener.tls.certificate_file is not None:
            port = listener.tls.port
            doors.append(_Door(sockets.enter_context(_bind(listener.host, port, "listener.tls.port")), tls=True))
        yield tuple(doors)


def _bind(host: str, port: int, setting: str) -> socket.socket:
    with ExitStack() as undo:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port} (listener.host, {setting}): {error.strerror}") from error
        undo.pop_all()
    listening.setblocking(False)
    return listening
