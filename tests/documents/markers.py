"""Blocks of a document between ``<!-- generated: name -->`` and ``<!-- end -->``, which nobody writes by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_BLOCK = re.compile(r"(?<=<!-- generated: )([a-z0-9.-]+)( -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def blocks(text: str) -> dict[str, str]:
    """The blocks of a document, by name."""
    return {match[1]: match[3] for match in _BLOCK.finditer(text)}


def filled(text: str, made: Mapping[str, str]) -> str:
    """The document with its blocks as they were made; one that was not made is a KeyError."""
    return _BLOCK.sub(lambda match: f"{match[1]}{match[2]}{made[match[1]]}{match[4]}", text)


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
