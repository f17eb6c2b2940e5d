"""How the commands show times, runs and deliveries to a person; whole lines, so that an ID can be copied."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3node.jobs.ledger.view_types import DeliveryView, RunView
from m3node.jobs.node.amounts import age

GOOD, BAD, CARE = "green", "bold red", "yellow"


def console() -> Console:
    """Return where a command prints; lines are as long as what they say."""
    return Console(highlight=False, soft_wrap=True)


def table(*headings: str, numbers: Iterable[str] = ()) -> Table:
    """Return a table without lines; the columns of ``numbers`` are set to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in set(numbers) else "left", overflow="fold")
    return made


def progress(run: RunView) -> str:
    """Say how far a run is."""
    if not run.stage:
        return "just begun"
    return f"{run.stage}, {run.done} of {run.total}" if run.total > 1 else run.stage


def run_lines(run: RunView, now: float) -> tuple[Text, ...]:
    """Return a run in two or three lines: its ID, where it stands and why."""
    first = Text(f"  {run.run}", style="bold")
    if run.priority == "stat":
        first.append("  STAT", style=BAD)
    lines = [first, Text("    ").append(_standing(run, now))]
    if run.message:
        why = f"{run.reason}: {run.message}" if run.reason else run.message
        lines.append(Text(f"    {why}", style="dim"))
    return tuple(lines)


def delivery_lines(delivery: DeliveryView, now: float) -> tuple[Text, ...]:
    """Return a delivery in one or two lines, as `run_lines`."""
    tried = f", {delivery.attempts} attempts failed" if delivery.attempts else ""
    until = delivery.finished_at or now
    line = Text(f"  {delivery.destination}/{delivery.name}", style="bold")
    state = Text(f"    {delivery.state}", style=_STYLES.get(delivery.state, ""))
    state.append(f" after {age(until - delivery.queued_at)}" if delivery.finished_at else "", style="")
    state.append(f" since {age(now - delivery.queued_at)}" if not delivery.finished_at else "", style="")
    state.append(tried, style="")
    if not delivery.finished_at and delivery.next_at > now:
        state.append(f", again in {age(delivery.next_at - now)}", style="")
    lines = [line, state]
    if delivery.last_error:
        lines.append(Text(f"    {delivery.last_error}", style="dim"))
    return tuple(lines)


_STYLES = {
    "done": GOOD,
    "failed": BAD,
    "rejected": CARE,
    "waiting": CARE,
    "sent": GOOD,
    "confirmed": GOOD,
    "dead": BAD,
    "retrying": CARE,
    "unknown": CARE,
}


def _standing(run: RunView, now: float) -> Text:
    text = Text(run.state, style=_STYLES.get(run.state, ""))
    if run.finished_at is not None:
        took = f" in {age(run.finished_at - run.started_at)}" if run.started_at else ""
        found = f", {run.outcome}" if run.state == "done" else ""
        lesions = f" ({run.lesions})" if run.lesions else ""
        return text.append(f"{found}{lesions}{took}, {age(now - run.finished_at)} ago", style="")
    if run.state == "running":
        since = f" for {age(now - run.started_at)}" if run.started_at else ""
        return text.append(f" on {run.worker}{since}: {progress(run)}", style="")
    return text.append(f" since {age(now - run.created_at)}, {run.slices} slices", style="")
