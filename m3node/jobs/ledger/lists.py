"""Runs and dead letters page by page, and single deliveries; studies are in `m3node.jobs.ledger.study_list`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from sqlalchemy import Engine, func, select

from m3node.delivery.state import DeliveryState
from m3node.jobs.ledger.database import reading
from m3node.jobs.ledger.paging import PAGE, Cursor, Page, read_page
from m3node.jobs.ledger.states import RunState
from m3node.jobs.ledger.tables import Delivery, Object, Run
from m3node.jobs.ledger.upsert import table_of
from m3node.jobs.ledger.view_types import DeliveryView, RunView


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters of one destination that ended alike."""

    destination: str
    last_error: str
    count: int
    oldest_at: float | None


def runs(
    engine: Engine,
    states: Collection[RunState] = (),
    *,
    before: Cursor | None = None,
    after: Cursor | None = None,
    limit: int = PAGE,
) -> Page[RunView]:
    """Return a page of runs in some states, in all without any; the one that was complete last first.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    table = table_of(Run)
    wanted = select(*(table.c[item.name] for item in fields(RunView)))
    if states:
        wanted = wanted.where(Run.state.in_(states))
    with reading(engine) as connection:
        page = read_page(connection, wanted, (Run.created_at, Run.run), before=before, after=after, limit=limit)
        return Page(tuple(RunView(**row) for row in page.rows), page.newer, page.older)


def dead_groups(engine: Engine, limit: int = PAGE) -> tuple[DeadGroup, ...]:
    """Return dead letters by destination and by what they ended with, the most frequent first.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    count = func.count()
    grouped = (
        select(
            Delivery.destination,
            Delivery.last_error,
            count,
            func.min(Delivery.finished_at),
        )
        .where(Delivery.state == DeliveryState.DEAD)
        .group_by(Delivery.destination, Delivery.last_error)
        .order_by(count.desc(), Delivery.destination, Delivery.last_error)
        .limit(limit)
    )
    with reading(engine) as connection:
        return tuple(DeadGroup(row[0], row[1], row[2], row[3]) for row in connection.execute(grouped))


def dead_letters(
    engine: Engine, destination: str = "", last_error: str | None = None, *, limit: int = PAGE
) -> tuple[DeliveryView, ...]:
    """Return the oldest dead letters, of one destination and with one error where they are named.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    table = table_of(Delivery)
    wanted = select(*(table.c[item.name] for item in fields(DeliveryView))).where(Delivery.state == DeliveryState.DEAD)
    if destination:
        wanted = wanted.where(Delivery.destination == destination)
    if last_error is not None:
        wanted = wanted.where(Delivery.last_error == last_error)
    wanted = wanted.order_by(Delivery.finished_at, Delivery.destination, Delivery.name).limit(limit)
    with reading(engine) as connection:
        return tuple(DeliveryView(**row) for row in connection.execute(wanted).mappings())


def delivery(engine: Engine, destination: str, name: str) -> DeliveryView | None:
    """Return a delivery; None where the ledger knows of none.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    table = table_of(Delivery)
    wanted = select(*(table.c[item.name] for item in fields(DeliveryView)))
    with reading(engine) as connection:
        row = (
            connection.execute(wanted.where(Delivery.destination == destination, Delivery.name == name))
            .mappings()
            .first()
        )
        return None if row is None else DeliveryView(**row)


def object_paths(engine: Engine, study_uids: Sequence[str]) -> dict[str, str]:
    """Return of each study that has any the path of one result object, relative to the data folder.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    found = select(Object.study_instance_uid, func.min(Object.path)).where(Object.study_instance_uid.in_(study_uids))
    with reading(engine) as connection:
        return {row[0]: row[1] for row in connection.execute(found.group_by(Object.study_instance_uid))}
