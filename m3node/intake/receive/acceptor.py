"""The acceptor: owns the ports, and passes each accepted socket to the least busy receiver.

One small process, so that limits have one place and the load is even whatever the kernel thinks (decision 10 of the
design). It reads nothing from the network. A receiver that dies is replaced; its associations end with it, and their
senders send again what was not acknowledged.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from m3node.audit.trail import AuditTrail
from m3node.disk import Watermark
from m3node.errors import ConfigError
from m3node.intake.receive.channel import Word
from m3node.intake.receive.pool import Pool
from m3node.intake.receive.ports import Ports
from m3node.intake.receive.spool import remove_leftovers
from m3node.layout import DataLayout
from m3node.settings import ListenerSettings, Settings

LOGGER = logging.getLogger(__name__)

_POLL_SECONDS = 0.2

_BACKLOG = 1024
"""Connections that wait in order while the receivers are busy; who comes when it is full has to try again."""


@dataclass(frozen=True, slots=True)
class _Door:
    """A port that is listened on."""

    socket: socket.socket
    tls: bool


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
        pool = Pool(settings, selector, AuditTrail(settings, process="acceptor"))
        try:
            for number in range(settings.listener.receivers):
                pool.start(number)
            room = Watermark(layout.root, settings.disk.refuse_free_mb)
            _run(pool, doors, room, stop, lambda: ready and ready(bound))
        finally:
            for door in doors:
                if door.socket in selector.get_map():
                    selector.unregister(door.socket)
                door.socket.close()
            pool.stop()


def _run(
    pool: Pool,
    doors: Sequence[_Door],
    room: Watermark,
    stop: threading.Event,
    ready: Callable[[], object],
) -> None:
    announced = accepting = False
    while not stop.is_set():
        # At the start until all receivers are there, and later while none takes any, connections wait in the kernel's
        # backlog.
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
        for key, events in pool.selector.select(timeout=_POLL_SECONDS):
            if isinstance(key.data, _Door):
                _accept(pool, key.data)
            else:
                pool.talk(key.data, events)
        pool.start_due()
        pool.lines.count()
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


def _accept(pool: Pool, door: _Door) -> None:
    try:
        connection, address = door.socket.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return  # the peer has gone again
    except OSError as error:
        pool.lines.say(logging.WARNING, f"cannot accept a connection: {error.strerror}")
        time.sleep(_POLL_SECONDS)  # out of file handles, for one: it waits in the backlog and would be tried at once
        return
    pool.give(connection, address[0], Word.SERVE_TLS if door.tls else Word.SERVE)


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
