"""The ledger's tables. Times are seconds since the epoch; no patient's name, ID or birth date is in any of them.

No table refers to another by a foreign key: a role notes what it has just done, and must not have to wait for what
another role has not noted yet.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import Double, Index, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The root of the tables; names of constraints are fixed, so that migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {float: Double}


class Study(Base):
    """A study of which something was received."""

    __tablename__ = "study"

    study_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    first_received_at: Mapped[float]
    last_received_at: Mapped[float]

    __table_args__ = (Index(None, "last_received_at", "study_instance_uid"),)


class Series(Base):
    """A received series; ``state`` is a `m3node.jobs.ledger.states.SeriesState`."""

    __tablename__ = "series"

    series_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    instances: Mapped[int]
    first_received_at: Mapped[float]
    last_received_at: Mapped[float]
    purged_at: Mapped[float | None]

    __table_args__ = (Index(None, "study_instance_uid", "state"),)


class Instance(Base):
    """A file of the spool, by its path relative to it; the row outlives the pixels (decision 4 of the design)."""

    __tablename__ = "instance"

    path: Mapped[str] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(index=True)
    sop_class_uid: Mapped[str]
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    sha256: Mapped[str]
    sender: Mapped[str]
    received_at: Mapped[float]


class Run(Base):
    """A generation of a stack and what became of it; ``state`` is a `m3node.jobs.ledger.states.RunState`.

    ``run`` is the stem of the manifest and the name of the folder in ``results/``; generations that were not fit have
    no manifest, and their ``manifest_key`` is empty. ``reason`` is a `m3node.rejection.Reason` or empty; ``message``
    says in words why the run waits, or ended without objects.
    """

    __tablename__ = "run"

    run: Mapped[str] = mapped_column(primary_key=True)
    manifest_key: Mapped[str] = mapped_column(index=True)
    label: Mapped[str]
    generation: Mapped[int]
    study_instance_uid: Mapped[str]
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    priority: Mapped[str]
    slices: Mapped[int]
    state: Mapped[str] = mapped_column(index=True)
    stage: Mapped[str]
    done: Mapped[int]
    total: Mapped[int]
    worker: Mapped[str]
    outcome: Mapped[str]
    lesions: Mapped[int]
    reason: Mapped[str]
    message: Mapped[str]
    supersedes: Mapped[str]
    superseded_by: Mapped[str]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    updated_at: Mapped[float]

    __table_args__ = (
        Index(None, "study_instance_uid", "state"),
        Index(None, "created_at", "run"),
        Index(None, "state", "created_at", "run"),
    )


class Object(Base):
    """A result object; ``kind`` is a `m3node.results.objects.ObjectKind`."""

    __tablename__ = "object"

    sop_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str]
    sop_class_uid: Mapped[str]
    series_instance_uid: Mapped[str]
    study_instance_uid: Mapped[str] = mapped_column(index=True)


class Delivery(Base):
    """An object on its way to one destination; ``state`` is a `m3node.delivery.state.DeliveryState`.

    ``name`` is that of the entry in the outbox.
    """

    __tablename__ = "delivery"

    destination: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    sop_instance_uid: Mapped[str] = mapped_column(index=True)
    study_instance_uid: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int]
    last_error: Mapped[str]
    transaction_uid: Mapped[str]
    queued_at: Mapped[float]
    next_at: Mapped[float]
    failing_since: Mapped[float | None]
    stored_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    __table_args__ = (
        Index(None, "study_instance_uid", "state"),
        Index(None, "destination", "state"),
        Index(None, "state", "finished_at"),
    )


class Worker(Base):
    """A worker slot, and who held it last."""

    __tablename__ = "worker"

    slot: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    detector: Mapped[str]


class Mark(Base):
    """How far the ledger has followed the files: what changed on disk after ``at`` has not been read."""

    __tablename__ = "mark"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[float]
