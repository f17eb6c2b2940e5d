"""What a check finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed"]

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


def listed(words: Sequence[str]) -> str:
    """Name some of a kind, and say how many more there are."""
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f"{', '.join(words[:_NAMED])}{more}"
