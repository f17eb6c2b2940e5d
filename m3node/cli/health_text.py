"""What ``m3node status`` says of the checks: those that are not well, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from m3node.cli.showing import BAD, CARE
from m3node.health.checks import Check, ready


def health_lines(checks: Sequence[Check]) -> Iterator[RenderableType]:
    """Yield what is not well; one line where all is."""
    wrong = [item for item in checks if item.state != "ok"]
    standing = "ready" if ready(checks) else "NOT READY"
    yield Text("health     ").append(standing, style="" if ready(checks) else BAD)
    width = max((len(item.name) for item in wrong), default=0)
    for item in wrong:
        style = BAD if item.state == "failed" else CARE
        yield Text(f"  {item.name:{width}}   ").append(item.message, style=style)
        if item.action:
            yield Text(f"  {'':{width}}   {item.action}", style="dim")
