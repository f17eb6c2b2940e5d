"""What each table says of a file: one place, so that a note and a rebuild give the same row."""

from __future__ import annotations

import time
from dataclasses import dataclass

from m3node.delivery.entry import Entry
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, StackKey
from m3node.jobs.answer.record import RunRecord
from m3node.jobs.ledger.states import RunState
from m3node.jobs.ledger.upsert import Row
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome

FROM_MANIFEST = (
    "manifest_key",
    "label",
    "generation",
    "study_instance_uid",
    "series_instance_uid",
    "priority",
    "slices",
    "supersedes",
    "created_at",
)
"""Columns of a run that its manifest says for good."""


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What the ledger takes from a manifest; see `m3node.intake.series.manifest.Manifest`."""

    key: str
    stack: StackKey
    generation: int
    study_instance_uid: str
    supersedes: str
    slices: int
    priority: str
    created_at: float

    @classmethod
    def of(cls, manifest: Manifest) -> ManifestFacts:
        """Take them from a manifest that was read."""
        return cls(
            key=manifest.key,
            stack=manifest.stack,
            generation=manifest.generation,
            study_instance_uid=manifest.study_instance_uid,
            supersedes=manifest.supersedes,
            slices=len(manifest.slices),
            priority=manifest.priority,
            created_at=manifest.created_at,
        )

    @property
    def run(self) -> str:
        """Name of its run."""
        return f"{self.stack.label}.g{self.generation}"


def instance_row(header: InstanceHeader) -> Row:
    """Return the row of a received instance."""
    return {
        "path": header.path,
        "sop_instance_uid": header.sop_instance_uid,
        "sop_class_uid": header.sop_class_uid,
        "series_instance_uid": header.series_instance_uid,
        "sha256": header.sha256,
        "sender": header.sender,
        "received_at": header.received_at,
    }


def queued_row(facts: ManifestFacts) -> Row:
    """Return the row of a run that has not begun."""
    return {
        "run": facts.run,
        "manifest_key": facts.key,
        "label": facts.stack.label,
        "generation": facts.generation,
        "study_instance_uid": facts.study_instance_uid,
        "series_instance_uid": facts.stack.series_instance_uid,
        "priority": facts.priority,
        "slices": facts.slices,
        "state": RunState.QUEUED,
        "stage": "",
        "done": 0,
        "total": 0,
        "worker": "",
        "outcome": "",
        "lesions": 0,
        "reason": "",
        "message": "",
        "supersedes": facts.supersedes,
        "superseded_by": "",
        "created_at": facts.created_at,
        "started_at": None,
        "finished_at": None,
        "updated_at": time.time(),
    }


def ended_row(record: RunRecord, run: str, finished_at: float) -> Row:
    """Return the row of a run that has ended; what only its manifest knows is left plain."""
    facts = ManifestFacts(
        key=record.manifest_key,
        stack=StackKey(record.series_instance_uid, _stack(record.label, record.series_instance_uid)),
        generation=record.generation,
        study_instance_uid=record.study_instance_uid,
        supersedes=record.supersedes,
        slices=0,
        priority="routine",
        created_at=record.started_at or finished_at,
    )
    rejection = record.rejection
    return queued_row(facts) | {
        "run": run,
        "state": end_of(record),
        "worker": record.worker,
        "outcome": record.outcome.value if record.outcome else "",
        "lesions": record.lesions,
        "reason": rejection.reason.value if rejection else "",
        "message": record.cancelled or record.failure or (rejection.message if rejection else ""),
        "superseded_by": record.superseded_by,
        "started_at": record.started_at or None,
        "finished_at": finished_at,
    }


def end_of(record: RunRecord) -> RunState:
    """Return what a record says a run ended as."""
    if record.cancelled:
        return RunState.CANCELLED
    if record.superseded_by:
        return RunState.SUPERSEDED
    if record.failure or (record.rejection is not None and record.rejection.reason is Reason.FAILED):
        return RunState.FAILED
    return RunState.REJECTED if record.outcome is Outcome.REJECTED else RunState.DONE


def rejected_row(key: StackKey, run: str, study_uid: str, rejection: Rejection, at: float) -> Row:
    """Return the row of a stack, or of a series' instances, that was not fit for a run."""
    generation = run.removeprefix(f"{key.label}.g").partition(".")[0]
    facts = ManifestFacts(
        key="",
        stack=key,
        generation=int(generation) if generation.isdecimal() else 0,
        study_instance_uid=study_uid,
        supersedes="",
        slices=0,
        priority="routine",
        created_at=at,
    )
    return queued_row(facts) | {
        "run": run,
        "state": RunState.FAILED if rejection.reason is Reason.FAILED else RunState.REJECTED,
        "outcome": Outcome.REJECTED.value,
        "reason": rejection.reason.value,
        "message": rejection.message,
        "finished_at": at,
    }


def object_rows(record: RunRecord, run: str) -> list[Row]:
    """Return the rows of a run's objects, their paths relative to the data folder."""
    return [
        {
            "sop_instance_uid": item.sop_instance_uid,
            "run": run,
            "kind": item.kind.value,
            "path": f"results/{run}/{item.path.name}",
            "sha256": item.sha256,
            "sop_class_uid": item.sop_class_uid,
            "series_instance_uid": item.series_instance_uid,
            "study_instance_uid": item.study_instance_uid,
        }
        for item in record.objects
    ]


def entry_row(entry: Entry) -> Row:
    """Return the row of a delivery."""
    return {
        "destination": entry.destination,
        "name": entry.name,
        "run": entry.run,
        "kind": entry.kind,
        "sop_instance_uid": entry.sop_instance_uid,
        "study_instance_uid": entry.study_instance_uid,
        "state": entry.state.value,
        "attempts": entry.attempts,
        "last_error": entry.last_error,
        "transaction_uid": entry.transaction_uid,
        "queued_at": entry.queued_at,
        "next_at": entry.not_before,
        "failing_since": entry.failing_since or None,
        "stored_at": entry.stored_at or None,
        "finished_at": entry.finished_at or None,
    }


def _stack(label: str, series_uid: str) -> str:
    return label.removeprefix(series_uid).removeprefix(".")
