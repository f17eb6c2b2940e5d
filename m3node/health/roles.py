"""Checks of the roles: whether each is somebody, and can do its work."""

from __future__ import annotations

from collections.abc import Iterator

from m3node.health.ports import not_listened_on
from m3node.health.state import Check, State, listed
from m3node.jobs.ledger.view_types import Overview, WorkerView
from m3node.jobs.locks import Holder, slot_of_lock
from m3node.jobs.node.glance import Glance
from m3node.jobs.node.ready import WEB
from m3node.jobs.node.roles import DELIVER, LISTEN, WATCH
from m3node.layout import DataLayout
from m3node.settings import Settings

SILENT_SECONDS = 60.0
"""A process that has not said for so long that it is alive is not; it says so every ten seconds."""
INTAKE = ("keeper", "clerk")
"""Processes of the listener's that hold no lock of their own."""


def listener(glance: Glance) -> Check:
    """Judge whether somebody listens, on all ports that it should."""
    held = _holder(glance, LISTEN)
    if held is None:
        return Check(
            "listener", "failed", "nobody listens: nothing is received", _start("m3node serve (or m3node listen)")
        )
    if closed := not_listened_on(held):
        ports = listed([str(port) for port in closed])
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
    return Check("listener", "ok", f"it listens on port {listed([str(port) for port in held.ports])}: {held}")


def intake(settings: Settings, glance: Glance) -> Check:
    """Judge whether the processes behind the listener are alive, by the files that they touch."""
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
            f"not alive: {listed(gone)}; what is received is safe, and waits",
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


def detector(glance: Glance) -> Check:
    """Judge whether a worker is alive that has loaded its detector."""
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
        return Check("detector", "warning", f"down: {listed(down)}", action)
    if overview is None:
        return Check("detector", "ok", "workers run; whether they have loaded their detector, the database would say")
    return Check("detector", "ok", f"loaded: {listed(sorted({role.detector for role in working}))}")


def _has_loaded(name: str, held: Holder, overview: Overview | None) -> bool:
    """Whether the process that is a slot has noted its detector; the ledger may know the one before it only."""
    if overview is None:
        return True
    known: WorkerView | None = next((item for item in overview.workers if item.slot == slot_of_lock(name)), None)
    return known is not None and (known.host, known.pid) == (held.host, held.pid)


def delivery(settings: Settings, glance: Glance) -> Check:
    """Judge whether somebody sends results."""
    held = _holder(glance, DELIVER)
    if held is not None:
        return Check("delivery", "ok", f"it runs: {held}")
    state: State = "failed" if settings.destinations else "warning"
    return Check(
        "delivery", state, "nobody delivers: results wait in the outbox", _start("m3node serve (or m3node deliver)")
    )


def watch(glance: Glance) -> Iterator[Check]:
    """Judge whether a watched folder is served, where there is one."""
    for role in glance.roles:
        if role.name == WATCH:
            if role.holder is None:
                action = _start("m3node serve (or m3node watch)")
                yield Check("watch", "failed", "nobody serves the watched folder: what is dropped there waits", action)
            else:
                yield Check("watch", "ok", f"it runs: {role.holder}")


def page(glance: Glance) -> Iterator[Check]:
    """Say that the page has no port, where that lasts: who asks its address then may see another node's."""
    held = _holder(glance, WEB)
    if held is not None and not held.ports and glance.at - held.since > SILENT_SECONDS:
        action = "set web.port, or end the program that has it; the log of web says what is in the way"
        yield Check("page", "warning", f"the page runs ({held}), and has no port", action)


def _holder(glance: Glance, name: str) -> Holder | None:
    return next((role.holder for role in glance.roles if role.name == name), None)


def _start(what: str) -> str:
    return f"start {what}; the end of its log says why it stopped"
