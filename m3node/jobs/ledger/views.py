"""Questions to the ledger that a person asks; the command line and the page show the same answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Select, case, func, select

from m3node.delivery.state import ENDS, DeliveryState
from m3node.jobs.ledger.database import reading
from m3node.jobs.ledger.states import RunState
from m3node.jobs.ledger.tables import Base, Delivery, Object, Run, Series, Study, Worker
from m3node.jobs.ledger.upsert import table_of
from m3node.jobs.ledger.view_types import (
    DeliveryView,
    DestinationView,
    ObjectView,
    Overview,
    RunView,
    SeriesView,
    StudyView,
    WorkerView,
)

_View = TypeVar("_View", RunView, DeliveryView, SeriesView, ObjectView, WorkerView)

UNENDED = tuple(state for state in DeliveryState if state not in ENDS)
"""States of deliveries that are still to end; named one by one, so that an index finds them among those that have."""

_URGENT_FIRST = case((Run.priority == "stat", 0), else_=1)


def overview(engine: Engine, now: float) -> Overview:
    """Return the node at a glance; ``now`` is seconds since the epoch.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    waits = Run.state.in_((RunState.QUEUED, RunState.WAITING))
    works = Run.state == RunState.RUNNING
    with reading(engine) as connection:
        return Overview(
            at=now,
            studies=connection.scalar(select(func.count()).select_from(Study)) or 0,
            series=_counts(connection, Series.state),
            runs=_counts(connection, Run.state),
            queued=_counts(connection, Run.priority, waits),
            oldest_queued_at=connection.scalar(select(func.min(Run.created_at)).where(waits)),
            running=_rows(connection, RunView, Run, works, order=(Run.started_at, Run.run)),
            destinations=_destinations(connection),
            workers=_rows(connection, WorkerView, Worker, order=(Worker.slot,)),
        )


def study(engine: Engine, uid: str) -> StudyView | None:
    """Return all that is known of a study; None where nothing of it was received.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    with reading(engine) as connection:
        row = connection.execute(select(table_of(Study)).where(Study.study_instance_uid == uid)).mappings().first()
        if row is None:
            return None
        return StudyView(
            study_instance_uid=uid,
            first_received_at=row["first_received_at"],
            last_received_at=row["last_received_at"],
            series=_rows(
                connection,
                SeriesView,
                Series,
                Series.study_instance_uid == uid,
                order=(Series.first_received_at, Series.series_instance_uid),
            ),
            runs=_rows(connection, RunView, Run, Run.study_instance_uid == uid, order=(Run.created_at, Run.run)),
            objects=_rows(
                connection, ObjectView, Object, Object.study_instance_uid == uid, order=(Object.run, Object.kind)
            ),
            deliveries=_rows(
                connection,
                DeliveryView,
                Delivery,
                Delivery.study_instance_uid == uid,
                order=(Delivery.queued_at, Delivery.run, Delivery.destination, Delivery.name),
            ),
        )


def runs(engine: Engine, states: Collection[RunState] = (), limit: int | None = None) -> tuple[RunView, ...]:
    """Return runs in some states, in all without any; urgent ones first, then the newest.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    wanted = [Run.state.in_(states)] if states else []
    order = (_URGENT_FIRST, Run.created_at.desc(), Run.run)
    with reading(engine) as connection:
        return _rows(connection, RunView, Run, *wanted, order=order, limit=limit)


def run(engine: Engine, name: str) -> RunView | None:
    """Return a run by its name; None where there is none.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    with reading(engine) as connection:
        return next(iter(_rows(connection, RunView, Run, Run.run == name, order=(Run.run,))), None)


def dead_letters(engine: Engine) -> tuple[DeliveryView, ...]:
    """Return the deliveries that were refused or given up, the oldest first.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    dead = Delivery.state == DeliveryState.DEAD
    order = (Delivery.finished_at, Delivery.destination, Delivery.name)
    with reading(engine) as connection:
        return _rows(connection, DeliveryView, Delivery, dead, order=order)


def _counts(connection: Connection, column: ColumnElement[str] | Any, *where: ColumnElement[bool]) -> dict[str, int]:
    counted = select(column, func.count()).where(*where).group_by(column).order_by(column)
    return {row[0]: row[1] for row in connection.execute(counted)}


def _destinations(connection: Connection) -> tuple[DestinationView, ...]:
    states: dict[str, dict[str, int]] = defaultdict(dict)
    grouped = select(Delivery.destination, Delivery.state, func.count()).group_by(Delivery.destination, Delivery.state)
    for name, state, count in connection.execute(grouped.order_by(Delivery.destination, Delivery.state)).all():
        states[name][state] = count
    unended = Delivery.state.in_(UNENDED)
    oldest = select(Delivery.destination, func.min(Delivery.queued_at), func.min(Delivery.failing_since))
    times = {
        row[0]: (row[1], row[2]) for row in connection.execute(oldest.where(unended).group_by(Delivery.destination))
    }
    errors = {name: _last_error(connection, name) for name in times}
    return tuple(
        DestinationView(
            name=name,
            states=counts,
            oldest_at=times.get(name, (None, None))[0],
            failing_since=times.get(name, (None, None))[1],
            last_error=errors.get(name, ""),
        )
        for name, counts in states.items()
    )


def _last_error(connection: Connection, destination: str) -> str:
    failing = (Delivery.destination == destination) & Delivery.state.in_(UNENDED) & (Delivery.last_error != "")
    newest = select(Delivery.last_error).where(failing).order_by(Delivery.next_at.desc(), Delivery.name).limit(1)
    return connection.scalar(newest) or ""


def _rows(
    connection: Connection,
    view: type[_View],
    kind: type[Base],
    *where: ColumnElement[bool],
    order: Sequence[Any],
    limit: int | None = None,
) -> tuple[_View, ...]:
    """Read rows as views, whose fields are named as the columns are."""
    table = table_of(kind)
    columns = [table.c[item.name] for item in fields(view)]
    wanted: Select[Any] = select(*columns).where(*where).order_by(*order).limit(limit)
    return tuple(view(**row) for row in connection.execute(wanted).mappings())
