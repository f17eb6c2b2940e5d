"""The checks: what of the node is well, what wants a look, and what has failed; each with what to do about it.

``failed`` is what keeps the node itself from its work. What others do, as an archive that is down, is a ``warning``:
the node is as ready as it can be, and goes on by itself when they come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from m3node.audit import files as trail
from m3node.audit.forwarded import MOST_COUNTED, standing
from m3node.errors import ConfigError
from m3node.health import roles
from m3node.health.state import Check, State, listed
from m3node.jobs.node.amounts import age, count_of, megabytes
from m3node.jobs.node.glance import Glance, Told, look
from m3node.settings import Settings
from m3node.tls.in_use import CertificateInUse, certificates_in_use

__all__ = ["Check", "Seen", "State", "check", "checks_of", "ready", "seen_now"]

Seen = tuple[Glance | None, tuple[Check, ...]]
"""A node at a glance, None where that cannot be, and its health."""

BEHIND_SECONDS = 900.0
"""An audit message that is not at the repository for so long wants a look."""


def check(settings: Settings, now: float) -> tuple[Check, ...]:
    """Look at everything; takes as long as the database takes to answer, and never raises for what it finds.

    Parameters
    ----------
    settings : Settings
        The tree.
    now : float
        Seconds since the epoch.
    """
    return seen_now(settings, now)[1]


def seen_now(settings: Settings, now: float, asked: Callable[[], Told] | None = None) -> Seen:
    """Look at a node and at its health; see `check`, and `m3node.jobs.node.glance.look`."""
    try:
        glance = look(settings, now, asked)
    except (ConfigError, OSError) as error:
        why = f"the data folder cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        action = "start m3node serve; or name the node's data folder in data_dir"
        return None, (Check("node", "failed", why, action), _certificates(settings, now))
    return glance, checks_of(settings, glance)


def checks_of(settings: Settings, glance: Glance) -> tuple[Check, ...]:
    """Judge a node that was looked at."""
    return (
        roles.listener(glance),
        roles.intake(settings, glance),
        roles.detector(glance),
        roles.delivery(settings, glance),
        *roles.watch(glance),
        *roles.page(glance),
        _destinations(glance),
        _disk(glance),
        _database(glance),
        _certificates(settings, glance.at),
        _audit(settings, glance.at),
    )


def ready(checks: Sequence[Check]) -> bool:
    """Whether the node can do its work: nothing has failed."""
    return all(item.state != "failed" for item in checks)


def _destinations(glance: Glance) -> Check:
    overview = glance.overview
    if overview is None:
        return Check("destinations", "ok", "how they are, the database would say")
    words = [
        f"{item.name} fails for {age(glance.at - item.failing_since)}"
        for item in overview.destinations
        if item.failing_since is not None
    ]
    dead = {item.name: item.states.get("dead", 0) for item in overview.destinations}
    words += [f"{count_of(count, 'dead letter')} for {name}" for name, count in dead.items() if count]
    if not words:
        return Check("destinations", "ok", "nothing waits for a destination that fails")
    action = "m3node status says what they answer; mend the network or the archive, the node goes on by itself"
    if any(dead.values()):
        action += "; then m3node requeue --all-dead"
    return Check("destinations", "warning", listed(words), action)


def _disk(glance: Glance) -> Check:
    disk = glance.disk
    room = f"{megabytes(disk.free_mb)} of {megabytes(disk.total_mb)} are free"
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
    return Check("certificates", state, listed(words), "put a new one in its place; it is taken without a restart")


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
        left = count_of(forwarded.behind, "message") + (" or more" if forwarded.behind >= MOST_COUNTED else "")
        return Check("audit", "warning", f"{left} not at the audit repository{why}", action)
    return Check("audit", "ok", "the audit trail can be written, and is forwarded")
