"""Insert or update, said in the two dialects that the ledger speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, inspect
from sqlalchemy.dialects import postgresql, sqlite

from m3node.jobs.ledger.tables import Base

Row = dict[str, Any]
"""A row: value by the name of its column."""

_INSERT: Mapping[str, Callable[[Table], postgresql.Insert | sqlite.Insert]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}

_LARGEST = 2**31 - 1
"""Of the columns that hold whole numbers."""


def table_of(kind: type[Base]) -> Table:
    """Return the table of a mapped class."""
    table = inspect(kind).local_table
    assert isinstance(table, Table)
    return table


def upsert(
    connection: Connection,
    kind: type[Base],
    rows: Sequence[Row],
    *,
    keep: Sequence[str] = (),
    merge: Callable[[Any, Any], Row] | None = None,
) -> None:
    """Write rows, each whether one of its key is there or not.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    kind : type
        The mapped class.
    rows : sequence of Row
        Each with every column.
    keep : sequence of str
        Columns that a row which is there keeps.
    merge : callable, optional
        Takes the columns of the row that is there and of the new one, and returns expressions for the columns that
        are neither kept nor simply replaced.
    """
    if not rows:
        return
    table = table_of(kind)
    insert = _INSERT[connection.dialect.name](table)
    key = [column.name for column in table.primary_key]
    kept = {*key, *keep}
    values: Row = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in kept}
    if merge is not None:
        values |= merge(table.c, insert.excluded)
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=values), plain)


def _plain(value: Any) -> Any:
    """Return a value as any database takes it: one odd character of a peer must not keep all else from the ledger."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    if isinstance(value, int):
        return max(-_LARGEST, min(value, _LARGEST))
    return value
