"""The checks: what of the node is well, what wants a look, and what has failed; each with what to do about it.

``failed`` is what keeps the node itself from its work. What others do, as an archive that is down, is a ``warning``:
the node is as ready as it can be, and goes on by itself when they come back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from m3node.audit import files as trail
from m3node.audit.forwarded import standing
from m3node.errors import ConfigError
from m3node.health.ports import not_listened_on
from m3node.jobs.ledger.view_types import Overview, WorkerView
from m3node.jobs.locks import Holder, slot_of_lock
from m3node.jobs.node.glance import Glance, look
from m3node.jobs.node.roles import DELIVER, LISTEN, WATCH
from m3node.layout import DataLayout
from m3node.settings import Settings
from m3node.tls.in_use import CertificateInUse, certificates_in_use

State = Literal["ok", "warning", "failed"]

SILENT_SECONDS = 60.0
"""A process that has not said for so long that it is alive is not; it says so every ten seconds."""
INTAKE = ("keeper", "clerk")
"""Processes of the listener's that hold no lock of their own."""
BEHIND_SECONDS = 900.0
"""An audit message that is not at the repository for so long wants a look."""
_DAY = 86_400.0
_NAMED = 5
"""How many of a kind are named in one message."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        ``listener``, ``intake``, ``detector``, ``delivery``, ``watch``, ``destinations``, ``disk``, ``database``,
        ``certificates``, ``audit``; ``node`` where none has ever run.
    state : str
        ``ok``; ``warning``: it wants a look, and the node does its work; ``failed``: it keeps the node from its work.
    message : str
        What is so, for an administrator.
    action : str
        What to do about it; empty when all is well.
    """

    name: str
    state: State
    message: str
    action: str = ""


def check(settings: Settings, now: float) -> tuple[Check, ...]:
    """Look at everything; takes as long as the database takes to answer, and never raises for what it finds.

    Parameters
    ----------
    settings : Settings
        The tree.
    now : float
        Seconds since the epoch.
    """
    try:
        glance = look(settings, now)
    except (ConfigError, OSError) as error:
        why = f"the data folder cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        return (
            Check("node", "failed", why, "start m3node serve; or name the node's data folder in data_dir"),
            _certificates(settings, now),
        )
    return checks_of(settings, glance)


def checks_of(settings: Settings, glance: Glance) -> tuple[Check, ...]:
    """Judge a node that was looked at."""
    return (
        _listener(glance),
        _intake(settings, glance),
        _detector(glance),
        _delivery(settings, glance),
        *_watch(glance),
        _destinations(glance),
        _disk(glance),
        _database(glance),
        _certificates(settings, glance.at),
        _audit(settings, glance.at),
    )


def ready(checks: Sequence[Check]) -> bool:
    """Whether the node can do its work: nothing has failed."""
    return all(item.state != "failed" for item in checks)


def _listener(glance: Glance) -> Check:
    held = _holder(glance, LISTEN)
    if held is None:
        return Check(
            "listener", "failed", "nobody listens: nothing is received", _start("m3node serve (or m3node listen)")
        )
    if closed := not_listened_on(held):
        ports = _listed([str(port) for port in closed])
        return Check(
            "listener",
            "failed",
            f"the listener runs ({held}), and does not listen on port {ports}",
            "its log says why: a port that another program has, a certificate that cannot be used",
        )
    if not held.ports:
        message = "the listener has not said yet which ports it has"
        action = "wait; where it lasts, the log of the acceptor says what is wrong"
        return Check("listener", "failed", message, action)
    return Check("listener", "ok", f"it listens on port {_listed([str(port) for port in held.ports])}: {held}")


def _intake(settings: Settings, glance: Glance) -> Check:
    """See whether the processes behind the listener are alive, by the files that they touch."""
    held = _holder(glance, LISTEN)
    if held is None:
        return Check("intake", "ok", "it is part of the listener")
    # Those of a node that has just started are not there yet; on a full disk there may be no file to touch.
    known = glance.at - held.since > SILENT_SECONDS and glance.disk.free_mb > 1
    gone = [name for name in INTAKE if known and not alive(settings, name, glance.at)]
    if gone:
        return Check(
            "intake",
            "failed",
            f"not alive: {_listed(gone)}; what is received is safe, and waits",
            "the log says why it ends; it is started again by itself, or start the listener anew",
        )
    return Check("intake", "ok", "what comes in is sorted and handed over")


def alive(settings: Settings, process: str, now: float) -> bool:
    """Whether a process of the listener has said lately that it is alive."""
    try:
        touched = (DataLayout(settings.data_dir).metrics / f"{process}.json").stat().st_mtime
    except OSError:
        return False
    return now - touched <= SILENT_SECONDS


def _detector(glance: Glance) -> Check:
    slots = [role for role in glance.roles if slot_of_lock(role.name) is not None]
    down = [role.name for role in slots if role.holder is None]
    overview = glance.overview
    working = [role for role in slots if role.holder is not None and _has_loaded(role.name, role.holder, overview)]
    if len(down) == len(slots):
        return Check(
            "detector",
            "failed",
            "no worker runs: what is received waits",
            _start("m3node serve (or m3node worker --slot N)"),
        )
    if not working:
        return Check(
            "detector",
            "failed",
            "no worker has loaded its detector yet",
            "wait; where it lasts, the log of the worker says what is wrong",
        )
    if down:
        action = _start(down[0]) + f"; or give what it had begun to others: m3node takeover {slot_of_lock(down[0])}"
        return Check("detector", "warning", f"down: {_listed(down)}", action)
    if overview is None:
        return Check("detector", "ok", "workers run; whether they have loaded their detector, the database would say")
    return Check("detector", "ok", f"loaded: {_listed(sorted({role.detector for role in working}))}")


def _has_loaded(name: str, held: Holder, overview: Overview | None) -> bool:
    """Whether the process that is a slot has noted its detector; the ledger may know the one before it only."""
    if overview is None:
        return True
    known: WorkerView | None = next((item for item in overview.workers if item.slot == slot_of_lock(name)), None)
    return known is not None and (known.host, known.pid) == (held.host, held.pid)


def _delivery(settings: Settings, glance: Glance) -> Check:
    held = _holder(glance, DELIVER)
    if held is not None:
        return Check("delivery", "ok", f"it runs: {held}")
    state: State = "failed" if settings.destinations else "warning"
    return Check(
        "delivery", state, "nobody delivers: results wait in the outbox", _start("m3node serve (or m3node deliver)")
    )


def _watch(glance: Glance) -> Iterator[Check]:
    for role in glance.roles:
        if role.name == WATCH:
            if role.holder is None:
                action = _start("m3node serve (or m3node watch)")
                yield Check("watch", "failed", "nobody serves the watched folder: what is dropped there waits", action)
            else:
                yield Check("watch", "ok", f"it runs: {role.holder}")


def _destinations(glance: Glance) -> Check:
    overview = glance.overview
    if overview is None:
        return Check("destinations", "ok", "how they are, the database would say")
    words = [
        f"{item.name} fails for {_age(glance.at - item.failing_since)}"
        for item in overview.destinations
        if item.failing_since is not None
    ]
    dead = {item.name: item.states.get("dead", 0) for item in overview.destinations}
    words += [f"{count} dead letters for {name}" for name, count in dead.items() if count]
    if not words:
        return Check("destinations", "ok", "nothing waits for a destination that fails")
    action = "m3node status says what they answer; mend the network or the archive, the node goes on by itself"
    if any(dead.values()):
        action += "; then m3node requeue --all-dead"
    return Check("destinations", "warning", _listed(words), action)


def _disk(glance: Glance) -> Check:
    disk = glance.disk
    room = f"{disk.free_mb:.0f} MB of {disk.total_mb:.0f} MB are free"
    action = "make room, or set [retention]; the node goes on by itself"
    if disk.state == "refusing":
        return Check("disk", "failed", f"{room}: nothing is taken in (disk.refuse_free_mb)", action)
    if disk.state == "low":
        return Check("disk", "warning", f"{room} (disk.warn_free_mb)", action)
    return Check("disk", "ok", room)


def _database(glance: Glance) -> Check:
    if not glance.trouble:
        return Check("database", "ok", glance.database)
    action = "bring the database back; what is received is safe in files, and the node goes on by itself"
    return Check("database", "failed", glance.trouble, action)


def _certificates(settings: Settings, now: float) -> Check:
    found = certificates_in_use(settings, now)
    wrong = [item for item in found if item.error or item.unfit or item.expires_soon]
    if not wrong:
        return Check("certificates", "ok", f"{len(found)} in use" if found else "none in use")
    state: State = "failed" if any(_is_ours(item) and not _is_good(item) for item in wrong) else "warning"
    words = [f"{item.setting} {_standing(item)}" for item in wrong]
    return Check("certificates", state, _listed(words), "put a new one in its place; it is taken without a restart")


def _is_ours(item: CertificateInUse) -> bool:
    """Whether nobody can come to the node without it; the others keep results from one destination, which waits."""
    return item.setting.startswith(("listener.", "web."))


def _is_good(item: CertificateInUse) -> bool:
    return item.days_left is not None and item.days_left >= 0


def _standing(item: CertificateInUse) -> str:
    if item.days_left is None or item.not_after is None or item.unfit:
        return f"cannot be used: {item.error or item.unfit}"
    day = time.strftime("%Y-%m-%d", time.gmtime(item.not_after))
    return f"has expired on {day}" if item.days_left < 0 else f"expires on {day}, in {item.days_left:.0f} days"


def _audit(settings: Settings, now: float) -> Check:
    if why := trail.trouble(settings):
        action = "mend it: messages wait in memory, and the oldest are lost when there are too many (audit.folder)"
        return Check("audit", "failed", f"the audit trail cannot be written: {why}", action)
    try:
        forwarded = standing(settings)
    except OSError as error:
        return Check("audit", "warning", f"the audit trail cannot be read: {error.strerror}", "see whose it is")
    if forwarded is None:
        return Check("audit", "ok", "the audit trail can be written")
    late = forwarded.since is not None and now - forwarded.since > BEHIND_SECONDS
    if forwarded.behind and (late or forwarded.error):
        why = f": {forwarded.error}" if forwarded.error else ""
        action = "mend the way to the repository (audit.syslog); they are in the trail, and go when it can be reached"
        return Check("audit", "warning", f"{forwarded.behind} messages are not at the audit repository{why}", action)
    return Check("audit", "ok", "the audit trail can be written, and is forwarded")


def _holder(glance: Glance, name: str) -> Holder | None:
    return next((role.holder for role in glance.roles if role.name == name), None)


def _start(what: str) -> str:
    return f"start {what}; the end of its log says why it stopped"


def _age(seconds: float) -> str:
    if seconds >= _DAY:
        return f"{seconds / _DAY:.0f} days"
    return f"{seconds / 3600:.0f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} min"


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f"{', '.join(words[:_NAMED])}{more}"
