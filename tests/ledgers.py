"""A ledger for tests, on either database, and what its tables hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from m3node.intake.series.header import InstanceHeader
from m3node.jobs.ledger.database import open_engine, prepare, writing
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.rows import instance_row
from m3node.jobs.ledger.states import SeriesState
from m3node.jobs.ledger.tables import Base, Instance
from m3node.jobs.ledger.upsert import table_of, upsert
from m3node.jobs.ledger.writes import put_series
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


def put_received(
    ledger: Ledger,
    series: str,
    study: str,
    *,
    state: SeriesState = SeriesState.ANSWERED,
    instances: int = 1,
    first: float = 1.0,
    last: float = 2.0,
    headers: Sequence[InstanceHeader] = (),
) -> None:
    """Write what the files would say of a received series and its instances."""
    row = {
        "series_instance_uid": series,
        "study_instance_uid": study,
        "state": state,
        "instances": len(headers) or instances,
        "first_received_at": first,
        "last_received_at": last,
        "purged_at": None,
    }
    with writing(ledger.engine) as connection:
        put_series(connection, [row])
        upsert(connection, Instance, [instance_row(header) for header in headers])


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
