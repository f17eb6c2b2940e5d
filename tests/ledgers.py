"""A ledger for tests, on either database, and what its tables hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from m3node.jobs.ledger.database import open_engine, prepare
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.tables import Base
from m3node.jobs.ledger.upsert import table_of
from m3node.settings import Settings

DATABASES = ("sqlite", "postgresql")


@contextmanager
def opened_ledger(settings: Settings) -> Iterator[Ledger]:
    """A ledger whose tables are ready."""
    prepare(settings)
    engine = open_engine(settings)
    try:
        yield Ledger(engine)
    finally:
        engine.dispose()


def rows_of(ledger: Ledger, kind: type[Base]) -> list[dict[str, Any]]:
    """A table's rows by their key, without the time of the note itself."""
    table = table_of(kind)
    with ledger.engine.connect() as connection:
        rows = connection.execute(select(table).order_by(*table.primary_key)).mappings().all()
    return [{name: value for name, value in row.items() if name != "updated_at"} for row in rows]


def row_of(ledger: Ledger, kind: type[Base]) -> dict[str, Any]:
    """The one row of a table."""
    (row,) = rows_of(ledger, kind)
    return row
