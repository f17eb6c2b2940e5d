"""Writes that notes and rebuilds share, on a connection in a transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, case, delete, func, or_, select, update

from m3node.delivery.state import DeliveryState
from m3node.jobs.answer.record import RunRecord
from m3node.jobs.ledger.files import SeriesFacts
from m3node.jobs.ledger.rows import FROM_MANIFEST, ManifestFacts, ended_row, object_rows, queued_row
from m3node.jobs.ledger.states import RUN_ENDS, RunState
from m3node.jobs.ledger.tables import Delivery, Instance, Object, Run, Series, Study
from m3node.jobs.ledger.upsert import Row, upsert

_SENT = (DeliveryState.SENT, DeliveryState.CONFIRMED, DeliveryState.CANCELLED)


def put_series(connection: Connection, rows: Sequence[Row]) -> None:
    """Write series; their studies begin with the first and end with the last of them."""
    upsert(connection, Series, rows)
    studies: dict[str, Row] = {}
    for row in rows:
        first, last = row["first_received_at"], row["last_received_at"]
        study = studies.setdefault(
            row["study_instance_uid"],
            {
                "study_instance_uid": row["study_instance_uid"],
                "first_received_at": first,
                "last_received_at": last,
            },
        )
        known = [at for at in (study["first_received_at"], first) if at > 0]
        study["first_received_at"] = min(known, default=0.0)
        study["last_received_at"] = max(study["last_received_at"], last)

    def merge(old: Any, new: Any) -> Row:
        first, last = new.first_received_at, new.last_received_at
        earlier = (first > 0) & ((first < old.first_received_at) | (old.first_received_at <= 0))
        return {
            "first_received_at": case((earlier, first), else_=old.first_received_at),
            "last_received_at": case((last > old.last_received_at, last), else_=old.last_received_at),
        }

    upsert(connection, Study, sorted(studies.values(), key=lambda row: row["study_instance_uid"]), merge=merge)


def put_index(connection: Connection, batch: Sequence[SeriesFacts]) -> None:
    """Write what the index says of series: their rows and those of their instances."""
    put_series(connection, [facts.series for facts in batch])
    upsert(connection, Instance, [row for facts in batch for row in facts.instances])


def put_manifests(connection: Connection, manifests: Sequence[ManifestFacts]) -> None:
    """Write generations; a run that is further along than queued stays where it is."""
    rows = [queued_row(facts) for facts in manifests]
    keep = [name for name in rows[0] if name not in FROM_MANIFEST] if rows else ()
    upsert(connection, Run, rows, keep=keep)


def put_records(connection: Connection, records: Sequence[tuple[RunRecord, str, float]]) -> None:
    """Write ended runs, each as (record, run, finished_at), and their objects."""
    rows = [ended_row(record, run, finished_at) for record, run, finished_at in records]

    def merge(old: Any, new: Any) -> Row:
        return {
            # A record of an older release does not say when; that of a superseded run says that it did not begin.
            "started_at": case(
                (new.state == RunState.SUPERSEDED, new.started_at),
                else_=func.coalesce(new.started_at, old.started_at),
            ),
            "worker": case((new.worker != "", new.worker), else_=old.worker),
        }

    keep = ("priority", "slices", "created_at")  # what the manifest says, and the record does not
    upsert(connection, Run, rows, keep=keep, merge=merge)
    upsert(connection, Object, [row for record, run, _ in records for row in object_rows(record, run)])


def requeue(connection: Connection, runs: Sequence[str]) -> None:
    """Let ended runs be queued again."""
    change = update(Run).where(Run.run.in_(runs), Run.state.in_(RUN_ENDS))
    connection.execute(
        change.values(
            state=RunState.QUEUED,
            stage="",
            done=0,
            total=0,
            worker="",
            outcome="",
            lesions=0,
            reason="",
            message="",
            superseded_by="",
            started_at=None,
            finished_at=None,
            updated_at=time.time(),
        )
    )


def forget(connection: Connection, before: float) -> None:
    """Delete deliveries that ended before a time, dead letters apart, and objects that all their destinations had."""
    old = Delivery.state.in_(_SENT) & (Delivery.finished_at < before)
    gone = select(Delivery.sop_instance_uid).where(old)
    # A finished_at that is missing counts as not old.
    kept = select(Delivery.sop_instance_uid).where(
        or_(Delivery.state.not_in(_SENT), Delivery.finished_at.is_(None), Delivery.finished_at >= before)
    )
    uid = Object.sop_instance_uid
    connection.execute(delete(Object).where(uid.in_(gone), uid.not_in(kept)))
    connection.execute(delete(Delivery).where(old))
