"""The roles of the node: which processes there are, and what each does.

Every process talks to the others through files under the data folder and through the database only, so each can be
killed and started again by itself, on this machine or, with a shared data folder and PostgreSQL, on another. Imports
are inside the roles, so that a process loads what it needs and no more.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial

from m3node.errors import ConfigError, DatabaseError
from m3node.jobs.locks import hold, slot_lock
from m3node.jobs.node.supervisor import Report, Role
from m3node.layout import DataLayout
from m3node.metrics import counting
from m3node.settings import Settings

_log = logging.getLogger(__name__)

LISTEN, DELIVER, WATCH, AUDIT = "listen", "deliver", "watch", "audit"
"""Names of locks; those of the worker slots are `m3node.jobs.locks.slot_lock`."""

AGAIN_SECONDS = 5.0
"""Between two looks whether a database that is away has come back."""


def listening(settings: Settings) -> tuple[Role, ...]:
    """Return the processes that receive: what comes in is stored, sorted, and handed over to the workers."""
    return (
        Role("acceptor", _acceptor, essential=True),
        # Quiet is counted from when senders can come back, not from when their node began to start.
        Role("keeper", _keeper, after="acceptor", last=True),
        Role("clerk", _clerk, last=True),
        *(Role(name, _audit, last=True) for name in auditing(settings)),
    )


def auditing(settings: Settings) -> tuple[str, ...]:
    """Return the role, and the lock, that forwards the audit trail; none where it goes nowhere."""
    return (AUDIT,) if settings.audit.syslog.host else ()


def serving(settings: Settings) -> tuple[Role, ...]:
    """Return all processes of a node on one machine."""
    slots = range(settings.jobs.slots)
    watching = (Role(WATCH, _watch),) if settings.watch.folder is not None else ()
    workers = (Role(slot_lock(slot), partial(_worker, slot)) for slot in slots)
    return (*listening(settings), *workers, Role(DELIVER, _deliver), *watching)


def locks_taken(settings: Settings) -> tuple[str, ...]:
    """Return the locks that `serving` processes take for themselves, besides ``listen``."""
    watching = (WATCH,) if settings.watch.folder is not None else ()
    return (*(slot_lock(slot) for slot in range(settings.jobs.slots)), DELIVER, *auditing(settings), *watching)


def work(settings: Settings, slot: int, stop: threading.Event) -> None:
    """Be a worker slot until ``stop`` is set.

    Raises
    ------
    RoleHeldError
        Another process holds the slot.
    ConfigError
        There is no such detector, or a newer m3node has changed the database.
    """
    from m3node.jobs.node.worker import run_worker  # noqa: PLC0415

    if prepared(settings, stop):
        run_worker(settings, slot, stop)


def deliver(settings: Settings, stop: threading.Event) -> None:
    """Send results until ``stop`` is set.

    Raises
    ------
    RoleHeldError
        Another process does.
    ConfigError
        A newer m3node has changed the database.
    """
    from m3node.jobs.node.deliver import run_deliver  # noqa: PLC0415

    with hold(DataLayout(settings.data_dir), DELIVER):
        if prepared(settings, stop):
            run_deliver(settings, stop)


def watch(settings: Settings, stop: threading.Event) -> None:
    """Serve the watched folder until ``stop`` is set; the input at hand has ``jobs.drain_seconds`` to be finished.

    One that takes longer ends with the process, and is taken up again by the next.

    Raises
    ------
    RoleHeldError
        Another process does.
    ConfigError
        No folder is set, it cannot be made, or its results would land in itself.
    """
    from m3node.jobs.inputs.watching import run_watch  # noqa: PLC0415

    prepare_watch(settings)
    with hold(DataLayout(settings.data_dir), WATCH):
        done = threading.Event()
        threading.Thread(target=_end_in_time, args=(settings.jobs.drain_seconds, stop, done), daemon=True).start()
        try:
            run_watch(settings, stop)
        finally:
            done.set()


def prepare_watch(settings: Settings) -> None:
    """Make the watched folder, so that it is there before anybody is told that the node is ready.

    Raises
    ------
    ConfigError
        No folder is set, it cannot be made, or its results would land in itself.
    """
    folder, out = settings.watch.folder, settings.watch.out
    if folder is None or out is None:
        raise ConfigError("no folder is watched: set watch.folder and watch.out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the watched folder {folder} (watch.folder): {error.strerror}") from error
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"watch.out ({out}) lies in watch.folder ({folder}): results would be taken for input")


def prepared(settings: Settings, stop: threading.Event) -> bool:
    """Wait until the database is there and its tables are those of this release; False when told to stop before.

    Raises
    ------
    ConfigError
        A newer m3node has changed the tables, or ``database_url`` is none.
    """
    from m3node.jobs.engine.setup import prepare  # noqa: PLC0415

    said = False
    while not stop.is_set():
        try:
            prepare(settings)
        except (DatabaseError, OSError) as error:
            if not said:
                _log.error("%s; waiting for it", error if isinstance(error, DatabaseError) else error.strerror)
            said = True
        else:
            if said:
                _log.info("the database is there again")
            return True
        stop.wait(AGAIN_SECONDS)
    return False


def _end_in_time(seconds: float, stop: threading.Event, done: threading.Event) -> None:
    stop.wait()
    if done.wait(seconds):
        return
    _log.warning("an input was not finished within %g s (jobs.drain_seconds); it is taken up again later", seconds)
    counting.write_now()
    logging.shutdown()
    os._exit(0)


def _acceptor(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.intake.receive.acceptor import serve_associations  # noqa: PLC0415

    serve_associations(settings, ready=report, stop=stop)


def _keeper(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.imaging.digest_apart import DigestsApart  # noqa: PLC0415
    from m3node.intake.keeper.keeper import run_keeper  # noqa: PLC0415
    from m3node.jobs.answer.rejections import record_rejection  # noqa: PLC0415
    from m3node.jobs.keeping.retention import Retention  # noqa: PLC0415

    record = partial(record_rejection, DataLayout(settings.data_dir))
    run_keeper(settings, stop, record=record, content_digest=DigestsApart(), disposable=Retention(settings))


def _clerk(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.jobs.node.clerk import run_clerk  # noqa: PLC0415

    if prepared(settings, stop):
        run_clerk(settings, stop)


def _audit(settings: Settings, stop: threading.Event, report: Report) -> None:
    from m3node.audit.forwarding import forward  # noqa: PLC0415

    with hold(DataLayout(settings.data_dir), AUDIT):
        forward(settings, stop)


def _worker(slot: int, settings: Settings, stop: threading.Event, report: Report) -> None:
    work(settings, slot, stop)


def _deliver(settings: Settings, stop: threading.Event, report: Report) -> None:
    deliver(settings, stop)


def _watch(settings: Settings, stop: threading.Event, report: Report) -> None:
    watch(settings, stop)
