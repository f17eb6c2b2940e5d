"""The node at a glance: which roles are alive, what room there is, what is to be done; also while the node is down."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Engine

from m3node import __version__
from m3node.errors import ConfigError, DatabaseError
from m3node.jobs.ledger import lists, views
from m3node.jobs.ledger.database import describe_url, ledger_url, open_engine
from m3node.jobs.ledger.view_types import Overview
from m3node.jobs.locks import Holder, holder, left_by, roles_seen, slot_lock, slot_of_lock
from m3node.jobs.node.ready import WEB
from m3node.jobs.node.roles import AUDIT, DELIVER, LISTEN, WATCH
from m3node.layout import DataLayout
from m3node.settings import Settings

SCHEMA = "m3node.status/1"


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role and who it is.

    Attributes
    ----------
    name : str
        ``listen``, ``worker-<slot>``, ``deliver``, ``watch``, ``audit``, ``web``.
    holder : Holder or None
        The process; None when nobody is it.
    detector : str
        Of a worker, where it has said so.
    """

    name: str
    holder: Holder | None
    detector: str


@dataclass(frozen=True, slots=True)
class DiskView:
    """The data folder's disk, in MB (10^6 bytes); ``state`` says which of the marks it is below."""

    total_mb: float
    free_mb: float
    warn_free_mb: float
    refuse_free_mb: float
    state: Literal["ok", "low", "refusing"]


@dataclass(frozen=True, slots=True)
class DeadView:
    """Dead letters of one destination that ended alike.

    Attributes
    ----------
    destination, last_error
        Which, and with what.
    count : int
        How many.
    oldest : str
        ID of the first of them, as ``m3node requeue`` takes it.
    """

    destination: str
    last_error: str
    count: int
    oldest: str


@dataclass(frozen=True, slots=True)
class Glance:
    """What ``m3node status`` shows.

    Attributes
    ----------
    at : float
        When, seconds since the epoch.
    version : str
        Of this m3node; the running one may be another.
    data_dir : str
        The data folder.
    roles : tuple of RoleView
        Those that the settings want, those that somebody is besides, and worker slots that did not end in order.
    disk : DiskView
        Its room.
    database : str
        Where the ledger is, without a password.
    trouble : str
        Why the database cannot be used; empty when it can.
    overview : Overview or None
        What the ledger says; None in trouble.
    dead : tuple of DeadView
        What will not be sent before somebody says so.
    """

    at: float
    version: str
    data_dir: str
    roles: tuple[RoleView, ...]
    disk: DiskView
    database: str
    trouble: str
    overview: Overview | None
    dead: tuple[DeadView, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What the ledger says; ``trouble`` says why it says nothing."""

    overview: Overview | None = None
    dead: tuple[DeadView, ...] = ()
    trouble: str = ""


def look(settings: Settings, now: float, asked: Callable[[], Told] | None = None) -> Glance:
    """Look at a node.

    Parameters
    ----------
    settings : Settings
        The tree.
    now : float
        Seconds since the epoch.
    asked : callable, optional
        Asks the ledger in place of `ask`.

    Raises
    ------
    ConfigError
        No node has run on the data folder, or ``database_url`` is none.
    """
    told = ask(settings, now) if asked is None else asked()
    return Glance(
        at=now,
        version=__version__,
        data_dir=str(settings.data_dir.absolute()),
        roles=_roles(settings, DataLayout(settings.data_dir), told.overview),
        disk=_disk(settings),
        database=describe_url(ledger_url(settings)),
        trouble=told.trouble,
        overview=told.overview,
        dead=told.dead,
    )


def ask(settings: Settings, now: float) -> Told:
    """Ask the ledger for what `look` shows of it; a database that is away may take long to say so.

    Raises
    ------
    ConfigError
        No node has run on the data folder, or ``database_url`` is none.
    """
    try:
        engine = existing_ledger(settings)
        try:
            return Told(views.overview(engine, now), _dead(engine))
        finally:
            engine.dispose()
    except DatabaseError as error:
        return Told(trouble=str(error))


def existing_ledger(settings: Settings) -> Engine:
    """Return the engine of a ledger that a node has made; asking a question makes no database.

    Raises
    ------
    ConfigError
        No node has run on the data folder.
    DatabaseError
        Its ledger is gone.
    """
    layout = DataLayout(settings.data_dir)
    if not layout.locks.is_dir():
        raise ConfigError(
            f"no node has run on the data folder {settings.data_dir.absolute()}; --config or data_dir names another"
        )
    url = ledger_url(settings)
    if url.get_backend_name() == "sqlite" and not (layout.database / "ledger.sqlite").exists():
        raise DatabaseError("there is no ledger; the next start of m3node serve makes it from the files")
    return open_engine(settings)


def to_json(glance: Glance) -> dict[str, Any]:
    """Return what ``m3node status --json`` prints; the names are a promise."""
    return {
        "schema": SCHEMA,
        **(asdict(glance.overview) if glance.overview is not None else {}),
        "at": glance.at,
        "version": glance.version,
        "data_dir": glance.data_dir,
        "database": {"url": glance.database, "error": glance.trouble},
        "disk": asdict(glance.disk),
        "roles": [
            {"name": role.name, "running": role.holder is not None, "detector": role.detector}
            | (asdict(role.holder) if role.holder is not None else {})
            for role in glance.roles
        ],
        "dead": [asdict(item) for item in glance.dead],
    }


def _roles(settings: Settings, layout: DataLayout, overview: Overview | None) -> tuple[RoleView, ...]:
    known = {worker.slot: worker for worker in overview.workers} if overview is not None else {}
    slots = set(range(settings.jobs.slots)) | set(known)
    held = {name: holder(layout, name) for name in roles_seen(layout)}
    # Another machine's, or one that was killed and is not wanted any more: a ledger that is away, or was made anew from
    # the files, says nothing of them, and what they had begun may wait for them.
    missed = (slot_of_lock(name) for name in held if held[name] or left_by(layout, name))
    slots |= {slot for slot in missed if slot is not None}
    watched = settings.watch.folder is not None or held.get(WATCH) is not None
    paged = held.get(WEB) is not None or left_by(layout, WEB) is not None
    audited = bool(settings.audit.syslog.host) or held.get(AUDIT) is not None
    optional = [name for name, wanted in ((WATCH, watched), (AUDIT, audited), (WEB, paged)) if wanted]
    names = (LISTEN, *(slot_lock(slot) for slot in sorted(slots)), DELIVER, *optional)
    detectors = {slot_lock(slot): worker.detector for slot, worker in known.items()}
    return tuple(RoleView(name, held.get(name), detectors.get(name, "")) for name in names)


def _disk(settings: Settings) -> DiskView:
    usage = shutil.disk_usage(settings.data_dir)
    free = usage.free / 1e6
    warn, refuse = settings.disk.warn_free_mb, settings.disk.refuse_free_mb
    state: Literal["ok", "low", "refusing"] = "refusing" if free < refuse else "low" if free < warn else "ok"
    return DiskView(usage.total / 1e6, free, warn, refuse, state)


def _dead(engine: Engine) -> tuple[DeadView, ...]:
    views_of_groups = []
    for group in lists.dead_groups(engine):
        oldest = lists.dead_letters(engine, group.destination, group.last_error, limit=1)
        # None when it was requeued between the two questions.
        views_of_groups += [
            DeadView(group.destination, group.last_error, group.count, f"{letter.destination}/{letter.name}")
            for letter in oldest
        ]
    return tuple(views_of_groups)
