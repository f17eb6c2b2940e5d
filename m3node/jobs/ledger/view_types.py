"""What a person is shown: frozen and small; the names are those of ``m3node status --json``, and a promise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunView:
    """A generation; see `m3node.jobs.ledger.tables.Run`."""

    run: str
    study_instance_uid: str
    series_instance_uid: str
    generation: int
    priority: str
    slices: int
    state: str
    stage: str
    done: int
    total: int
    worker: str
    outcome: str
    lesions: int
    reason: str
    message: str
    created_at: float
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """An object and a destination; see `m3node.jobs.ledger.tables.Delivery`."""

    destination: str
    name: str
    run: str
    kind: str
    sop_instance_uid: str
    study_instance_uid: str
    state: str
    attempts: int
    last_error: str
    queued_at: float
    next_at: float
    failing_since: float | None
    stored_at: float | None
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class SeriesView:
    """A received series; see `m3node.jobs.ledger.tables.Series`."""

    series_instance_uid: str
    study_instance_uid: str
    state: str
    instances: int
    first_received_at: float
    last_received_at: float
    purged_at: float | None


@dataclass(frozen=True, slots=True)
class ObjectView:
    """A result object; see `m3node.jobs.ledger.tables.Object`."""

    sop_instance_uid: str
    run: str
    kind: str
    path: str
    sop_class_uid: str
    series_instance_uid: str
    sha256: str


@dataclass(frozen=True, slots=True)
class WorkerView:
    """Who held a slot when it was noted last; whether he still does, his lock says."""

    slot: int
    host: str
    pid: int
    started_at: float
    seen_at: float
    detector: str


@dataclass(frozen=True, slots=True)
class DestinationView:
    """A destination's deliveries.

    Attributes
    ----------
    states : dict of str to int
        How many are in which `m3node.delivery.state.DeliveryState`.
    oldest_at : float or None
        Since when the oldest one waits that has not ended.
    failing_since : float or None
        Since when the one that fails longest does.
    last_error : str
        What the last attempt ended with, of the one that is tried again last.
    """

    name: str
    states: dict[str, int]
    oldest_at: float | None
    failing_since: float | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The node at a glance.

    Attributes
    ----------
    at : float
        When it was asked for, seconds since the epoch.
    studies : int
        How many studies are known.
    series, runs : dict of str to int
        How many are in which state.
    queued : dict of str to int
        Runs that wait for a worker, by priority.
    oldest_queued_at : float or None
        Since when the oldest of them waits.
    running : tuple of RunView
        With stage and progress.
    destinations : tuple of DestinationView
        Those that anything was ever queued for.
    workers : tuple of WorkerView
        By slot.
    """

    at: float
    studies: int
    series: dict[str, int]
    runs: dict[str, int]
    queued: dict[str, int]
    oldest_queued_at: float | None
    running: tuple[RunView, ...]
    destinations: tuple[DestinationView, ...]
    workers: tuple[WorkerView, ...]


@dataclass(frozen=True, slots=True)
class StudyView:
    """All that is known of one study."""

    study_instance_uid: str
    first_received_at: float
    last_received_at: float
    series: tuple[SeriesView, ...]
    runs: tuple[RunView, ...]
    objects: tuple[ObjectView, ...]
    deliveries: tuple[DeliveryView, ...]


View = RunView | DeliveryView | SeriesView | ObjectView | WorkerView | DestinationView | Overview | StudyView


def to_json(view: View) -> dict[str, Any]:
    """Return a view as what JSON can hold; the names are part of the product's promise."""
    return asdict(view)
