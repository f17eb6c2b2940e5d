"""Lists page by page, the newest first, each page found by an index.

A page is asked for by what stands at its edge (a cursor), not by its number: what comes in meanwhile moves nothing, and
the last page costs what the first does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, tuple_

PAGE = 50
"""Rows of a page."""

_CURSOR = re.compile(r"(?P<at>[0-9.e+-]{1,32})~(?P<key>[0-9a-f.g]{1,100})")

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Cursor:
    """An edge of a page: a time, and what tells rows of the same time apart."""

    at: float
    key: str

    def __str__(self) -> str:
        return f"{self.at!r}~{self.key}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Read a cursor; None for anything else."""
        found = _CURSOR.fullmatch(text)
        try:
            return cls(float(found["at"]), found["key"]) if found else None
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Page(Generic[_Row]):
    """Some rows of a list.

    Attributes
    ----------
    rows : tuple
        The newest first.
    newer, older : Cursor or None
        Edges to go on from; None where there is nothing more.
    """

    rows: tuple[_Row, ...]
    newer: Cursor | None
    older: Cursor | None


def read_page(
    connection: Connection,
    wanted: Select[Any],
    order: tuple[Any, Any],
    *,
    before: Cursor | None,
    after: Cursor | None,
    limit: int,
) -> Page[Any]:
    """Read a page of rows as mappings; ``order`` is a time and a key."""
    edge = tuple_(*order)
    if before is not None:
        wanted = wanted.where(edge > (before.at, before.key)).order_by(*order)
    else:
        if after is not None:
            wanted = wanted.where(edge < (after.at, after.key))
        wanted = wanted.order_by(*(column.desc() for column in order))
    rows = list(connection.execute(wanted.limit(limit + 1)).mappings())
    more = len(rows) > limit
    rows = rows[:limit]
    if before is not None:
        rows.reverse()
    if not rows:
        return Page((), None, None)
    first, last = (Cursor(row[order[0].key], row[order[1].key]) for row in (rows[0], rows[-1]))
    has_newer = more if before is not None else after is not None
    has_older = True if before is not None else more
    return Page(tuple(rows), first if has_newer else None, last if has_older else None)
