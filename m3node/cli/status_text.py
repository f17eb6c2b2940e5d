"""What ``m3node status`` says to a person: what is wrong stands out, and the command that mends it stands beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from m3node.cli.showing import BAD, CARE, GOOD, delivery_lines, run_lines, table
from m3node.jobs.engine.names import slot_of
from m3node.jobs.ledger.view_types import DestinationView, Overview, StudyView
from m3node.jobs.locks import slot_lock, slot_of_lock
from m3node.jobs.node.amounts import age, megabytes
from m3node.jobs.node.glance import Glance

SHOWN = 20
"""Running jobs and kinds of dead letters that are shown; ``m3node jobs`` shows all."""

_STANDING = {"waiting": "", "retrying": CARE, "unknown": CARE, "stored": "", "sent": GOOD, "confirmed": GOOD}
_WORDS = {"unknown": "without an answer", "stored": "sent and not confirmed yet"}


def glance_lines(glance: Glance) -> Iterator[RenderableType]:
    """Yield what the node looks like at a glance."""
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(glance.at))
    yield Text(f"m3node {glance.version}   {glance.data_dir}   {at}", style="dim")
    yield from _roles(glance)
    if glance.overview is None:
        yield Text(f"\n{glance.trouble}", style=BAD)
        yield "Jobs and deliveries cannot be shown. They are safe in files, and go on when the database is there."
    else:
        yield from _work(glance, glance.overview)
        yield from _deliveries(glance, glance.overview)
    yield Text()
    yield _disk(glance)
    yield Text(f"database   {glance.database}")


def study_lines(study: StudyView, now: float) -> Iterator[RenderableType]:
    """Yield all that is known of a study."""
    yield Text(f"study {study.study_instance_uid}", style="bold")
    yield f"received from {age(now - study.first_received_at)} to {age(now - study.last_received_at)} ago"
    yield "\nseries"
    for series in study.series:
        yield Text(f"  {series.series_instance_uid}", style="bold")
        yield f"    {series.state}, {series.instances} instances"
    yield from _listed("generations", (run_lines(run, now) for run in study.runs))
    objects = (
        (Text(f"  {item.sop_instance_uid}", style="bold"), Text(f"    {item.kind}, {item.path}"))
        for item in study.objects
    )
    yield from _listed("objects", objects)
    yield from _listed("deliveries", (delivery_lines(item, now) for item in study.deliveries))


def _roles(glance: Glance) -> Iterator[RenderableType]:
    shown = table("role", "", "process", "for", "detector")
    for role in glance.roles:
        if role.holder is None:
            shown.add_row(Text(role.name), Text("DOWN", style=BAD), "", "", "")
        else:
            who = Text(f"{role.holder.pid} on {role.holder.host}")
            up = age(glance.at - role.holder.since)
            shown.add_row(Text(role.name), Text("runs", style=GOOD), who, up, Text(role.detector))
    yield shown
    if all(role.holder is None for role in glance.roles):
        yield Text("The node is down: start it with m3node serve.", style=BAD)
        return
    for slot in (slot_of_lock(role.name) for role in glance.roles if role.holder is None):
        if slot is not None:
            yield f"worker-{slot} is down: start it, or give what it had begun to others with m3node takeover {slot}"


def _work(glance: Glance, overview: Overview) -> Iterator[RenderableType]:
    count = overview.runs
    series = ", ".join(f"{number} {state}" for state, number in overview.series.items())
    yield Text(f"\nreceived   {_number(overview.studies, 'study', 'studies')}; series: {series or 'none'}")
    queue = Text("queue      ")
    queue.append(", ".join(f"{number} {priority}" for priority, number in overview.queued.items()) or "empty")
    if overview.oldest_queued_at is not None:
        queue.append(f"; the oldest for {age(glance.at - overview.oldest_queued_at)}")
    if count.get("waiting"):
        queue.append(f"; {count['waiting']} wait for disk, memory or an earlier generation", style=CARE)
    yield queue
    failed = count.get("failed", 0)
    ends = [f"{count.get(state, 0)} {state}" for state in ("done", "rejected", "superseded", "cancelled")]
    ended = Text(f"ended      {', '.join(ends)}, ").append(f"{failed} failed", style=BAD if failed else "")
    if failed:
        ended.append("   (m3node jobs --failed, m3node requeue ID)", style="dim")
    yield ended
    if overview.running:
        yield Text("\nrunning")
    alive = {role.name for role in glance.roles if role.holder is not None}
    for run in overview.running[:SHOWN]:
        yield from run_lines(run, glance.at)
        slot = slot_of(run.worker)
        if slot is not None and slot_lock(slot) not in alive:
            yield Text(f"    its worker is down: start slot {slot} again, or m3node takeover {slot}", style=BAD)
    if len(overview.running) > SHOWN:
        yield f"  and {len(overview.running) - SHOWN} more; m3node jobs --running"


def _deliveries(glance: Glance, overview: Overview) -> Iterator[RenderableType]:
    yield Text("\ndestinations" if overview.destinations else "\ndestinations: nothing was queued for any yet")
    width = max((len(item.name) for item in overview.destinations), default=0)
    for item in overview.destinations:
        yield _destination(item, width, glance.at)
        if item.last_error:
            since = f" for {age(glance.at - item.failing_since)}" if item.failing_since else ""
            yield Text(f"  {'':{width}}   fails{since}: {item.last_error}", style=CARE)
    if not glance.dead:
        return
    yield Text("\ndead letters: not sent before you say so", style=BAD)
    for dead in glance.dead[:SHOWN]:
        yield Text(f"  {_number(dead.count, 'object', 'objects')} for {dead.destination}: {dead.last_error}")
        yield Text(f"    m3node requeue {dead.oldest}", style="dim")
    yield Text("  m3node jobs --dead shows each; m3node requeue --all-dead sends all again", style="dim")


def _destination(item: DestinationView, width: int, now: float) -> Text:
    line = Text(f"  {item.name:{width}}   ")
    parts = [
        Text(f"{item.states[state]} {_WORDS.get(state, state)}", style=_STANDING.get(state, ""))
        for state in (*_STANDING, "cancelled")
        if item.states.get(state)
    ]
    if item.states.get("dead"):
        parts.append(Text(f"{item.states['dead']} dead", style=BAD))
    line.append(Text(", ").join(parts))
    if item.oldest_at is not None:
        line.append(f"; the oldest for {age(now - item.oldest_at)}")
    return line


def _disk(glance: Glance) -> RenderableType:
    disk = glance.disk
    text = Text(f"disk       {megabytes(disk.free_mb)} free of {megabytes(disk.total_mb)}")
    if disk.state == "refusing":
        text.append(f"; BELOW {megabytes(disk.refuse_free_mb)}: NOTHING IS TAKEN IN (disk.refuse_free_mb)", style=BAD)
    elif disk.state == "low":
        text.append(f"; below {megabytes(disk.warn_free_mb)}: make room (disk.warn_free_mb)", style=CARE)
    return text


def _listed(heading: str, items: Iterator[tuple[Text, ...]]) -> Iterator[RenderableType]:
    first = True
    for lines in items:
        if first:
            yield f"\n{heading}"
        first = False
        yield from lines


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
