"""The list of studies: which ones, and of each its parts counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, or_, select
from sqlalchemy.orm import aliased

from m3node.delivery.state import DeliveryState
from m3node.intake.uid import is_uid
from m3node.jobs.ledger.database import reading
from m3node.jobs.ledger.paging import PAGE, Cursor, Page, read_page
from m3node.jobs.ledger.states import RunState, SeriesState
from m3node.jobs.ledger.tables import Delivery, Instance, Object, Run, Series, Study
from m3node.jobs.ledger.upsert import table_of
from m3node.jobs.ledger.views import UNENDED
from m3node.results.findings import Outcome


class StudyFilter(StrEnum):
    """Which studies are wanted: those of which at least one part is so."""

    RECEIVING = "receiving"
    WORKING = "working"
    LESIONS = "lesions"
    REJECTED = "rejected"
    FAILED = "failed"
    UNDELIVERED = "undelivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study in a list, with its parts counted.

    Attributes
    ----------
    study_instance_uid, first_received_at, last_received_at
        As in the ledger.
    series : dict of str to int
        How many are in which state.
    instances : int
        How many were received.
    runs : dict of str to int
        How many are in which state; of each stack the newest generation counts.
    outcomes : dict of str to int
        How many of those that are done found what.
    lesions : int
        Found in all of them.
    deliveries : dict of str to int
        How many are in which state, of all generations.
    """

    study_instance_uid: str
    first_received_at: float
    last_received_at: float
    series: dict[str, int]
    instances: int
    runs: dict[str, int]
    outcomes: dict[str, int]
    lesions: int
    deliveries: dict[str, int]


def studies(
    engine: Engine,
    wanted: StudyFilter | None = None,
    *,
    uid: str = "",
    before: Cursor | None = None,
    after: Cursor | None = None,
    limit: int = PAGE,
) -> Page[StudyRow]:
    """Return a page of studies, the one that something came in for last first.

    Parameters
    ----------
    engine : Engine
        Of the ledger.
    wanted : StudyFilter, optional
        All of them without it.
    uid : str
        The beginning of a Study Instance UID, or the whole UID of one of its series, of an instance that was received
        or of an object that was made; what is no UID finds nothing.
    before, after : Cursor, optional
        Go on from the edges of another page: with what is newer (``before``) or older (``after``).
    limit : int
        Rows of a page.

    Raises
    ------
    DatabaseError
        The database cannot be reached, or refuses.
    """
    conditions = [] if wanted is None else [_having(wanted)]
    order = (Study.last_received_at, Study.study_instance_uid)
    with reading(engine) as connection:
        if uid:
            conditions.append(_named(connection, uid))
        table = table_of(Study)
        page = read_page(connection, select(table).where(*conditions), order, before=before, after=after, limit=limit)
        return Page(_counted(connection, page.rows), page.newer, page.older)


def _having(wanted: StudyFilter) -> ColumnElement[bool]:
    """Return the condition that a study has a part of a kind."""
    of_run = Run.study_instance_uid == Study.study_instance_uid
    of_series = Series.study_instance_uid == Study.study_instance_uid
    of_delivery = Delivery.study_instance_uid == Study.study_instance_uid
    parts: dict[StudyFilter, tuple[type[Any], ColumnElement[bool]]] = {
        StudyFilter.RECEIVING: (Series, of_series & (Series.state == SeriesState.RECEIVING)),
        StudyFilter.WORKING: (
            Run,
            of_run & Run.state.in_((RunState.QUEUED, RunState.WAITING, RunState.RUNNING)),
        ),
        StudyFilter.LESIONS: (
            Run,
            of_run & (Run.state == RunState.DONE) & (Run.outcome == Outcome.LESIONS.value) & _newest(),
        ),
        StudyFilter.REJECTED: (Run, of_run & (Run.state == RunState.REJECTED) & _newest()),
        StudyFilter.FAILED: (Run, of_run & (Run.state == RunState.FAILED) & _newest()),
        StudyFilter.UNDELIVERED: (Delivery, of_delivery & Delivery.state.in_(UNENDED)),
        StudyFilter.DEAD: (Delivery, of_delivery & (Delivery.state == DeliveryState.DEAD)),
    }
    kind, condition = parts[wanted]
    return select(1).select_from(kind).where(condition).correlate(Study).exists()


def _newest() -> ColumnElement[bool]:
    """Return the condition that a run's stack has no newer generation."""
    newer = aliased(Run)
    return ~(
        select(1)
        .where(
            newer.series_instance_uid == Run.series_instance_uid,
            newer.label == Run.label,
            newer.generation > Run.generation,
        )
        .correlate(Run)
        .exists()
    )


def _named(connection: Connection, uid: str) -> ColumnElement[bool]:
    """Return the condition that a study is the one that a UID is of."""
    if not is_uid(uid.removesuffix(".")):
        return Study.study_instance_uid == ""
    of_instance = select(Series.study_instance_uid).join(
        Instance, Instance.series_instance_uid == Series.series_instance_uid
    )
    elsewhere = {
        *connection.scalars(select(Series.study_instance_uid).where(Series.series_instance_uid == uid).limit(PAGE)),
        *connection.scalars(of_instance.where(Instance.sop_instance_uid == uid).limit(PAGE)),
        *connection.scalars(select(Object.study_instance_uid).where(Object.sop_instance_uid == uid).limit(PAGE)),
    }
    begins = Study.study_instance_uid.startswith(uid, autoescape=True)
    return or_(begins, Study.study_instance_uid.in_(elsewhere)) if elsewhere else begins


def _counted(connection: Connection, rows: Sequence[Any]) -> tuple[StudyRow, ...]:
    """Count the parts of a page's studies: three questions, however many studies and parts there are."""
    uids = [row["study_instance_uid"] for row in rows]
    series: dict[str, dict[str, int]] = defaultdict(dict)
    instances: dict[str, int] = defaultdict(int)
    runs: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    outcomes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    lesions: dict[str, int] = defaultdict(int)
    deliveries: dict[str, dict[str, int]] = defaultdict(dict)
    if uids:
        of_series = select(Series.study_instance_uid, Series.state, func.count(), func.sum(Series.instances))
        of_series = of_series.where(Series.study_instance_uid.in_(uids))
        for uid, state, count, received in connection.execute(
            of_series.group_by(Series.study_instance_uid, Series.state)
        ):
            series[uid][state] = count
            instances[uid] += received
        of_runs = select(Run.study_instance_uid, Run.state, Run.outcome, func.count(), func.sum(Run.lesions))
        of_runs = of_runs.where(and_(Run.study_instance_uid.in_(uids), _newest()))
        for uid, state, outcome, count, found in connection.execute(
            of_runs.group_by(Run.study_instance_uid, Run.state, Run.outcome)
        ):
            runs[uid][state] += count
            if state == RunState.DONE:
                outcomes[uid][outcome] += count
                lesions[uid] += found
        of_deliveries = select(Delivery.study_instance_uid, Delivery.state, func.count())
        of_deliveries = of_deliveries.where(Delivery.study_instance_uid.in_(uids))
        for uid, state, count in connection.execute(
            of_deliveries.group_by(Delivery.study_instance_uid, Delivery.state)
        ):
            deliveries[uid][state] = count
    return tuple(
        StudyRow(
            study_instance_uid=row["study_instance_uid"],
            first_received_at=row["first_received_at"],
            last_received_at=row["last_received_at"],
            series=series[row["study_instance_uid"]],
            instances=instances[row["study_instance_uid"]],
            runs=dict(runs[row["study_instance_uid"]]),
            outcomes=dict(outcomes[row["study_instance_uid"]]),
            lesions=lesions[row["study_instance_uid"]],
            deliveries=deliveries[row["study_instance_uid"]],
        )
        for row in rows
    )
