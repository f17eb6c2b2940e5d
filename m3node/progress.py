"""How long work tells how far it is: one callable that every stage takes."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as work goes on."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
