"""``run.json``: the last file of a run, which says that it is done and which objects it left."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m3node.durable import write_once
from m3node.errors import ResultError
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject

_log = logging.getLogger(__name__)

RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished run.

    Attributes
    ----------
    label, generation
        Name the stack and its generation.
    manifest_key : str
        The manifest it answers.
    supersedes : str
        Key of the manifest before it, or empty.
    superseded_by : str
        Key of the newer generation that made this run pointless before it began; no objects then.
    failure : str
        Why there are findings but no objects; empty when all is well.
    rejection : Rejection or None
        Why there are no objects although nothing has taken the run's place; None in records of older releases.
    cancelled : str
        Why a person took the run back; empty otherwise.
    started_at, finished_at : float
        When it was begun first and when it ended, seconds since the epoch; 0 in records of older releases.
    worker : str
        Who ended it; empty in records of older releases.
    """

    label: str
    generation: int
    manifest_key: str
    study_instance_uid: str
    series_instance_uid: str
    outcome: Outcome | None
    lesions: int
    objects: tuple[ResultObject, ...]
    supersedes: str
    superseded_by: str
    failure: str
    rejection: Rejection | None = None
    cancelled: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    worker: str = ""


def write_record(record: RunRecord, folder: Path) -> RunRecord:
    """Write ``run.json`` durably; one that is there already stays.

    Returns
    -------
    RunRecord
        What the file says: a record without an end gets the time of now.

    Raises
    ------
    ResultError
        One that is there already is damaged.
    """
    record = replace(record, finished_at=record.finished_at or time.time())
    tree = {
        "label": record.label,
        "generation": record.generation,
        "manifest_key": record.manifest_key,
        "study_instance_uid": record.study_instance_uid,
        "series_instance_uid": record.series_instance_uid,
        "outcome": record.outcome.value if record.outcome else None,
        "lesions": record.lesions,
        "objects": [
            {
                "kind": item.kind.value,
                "file": item.path.name,
                "sha256": item.sha256,
                "sop_class_uid": item.sop_class_uid,
                "sop_instance_uid": item.sop_instance_uid,
                "series_instance_uid": item.series_instance_uid,
                "study_instance_uid": item.study_instance_uid,
            }
            for item in record.objects
        ],
        "supersedes": record.supersedes,
        "superseded_by": record.superseded_by,
        "failure": record.failure,
        "rejection": None
        if record.rejection is None
        else {
            "reason": record.rejection.reason.value,
            "message": record.rejection.message,
            "subject": record.rejection.subject,
        },
        "cancelled": record.cancelled,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "worker": record.worker,
    }
    if write_once(folder / RECORD, (json.dumps(tree, indent=1) + "\n").encode()):
        return record
    return read_record(folder) or record


def read_record(folder: Path) -> RunRecord | None:
    """Read ``run.json``; None when the run is not done.

    Raises
    ------
    ResultError
        It is damaged, or of another version.
    """
    try:
        return _record(json.loads((folder / RECORD).read_text(encoding="utf-8")), folder)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{RECORD} of run {folder.name} is damaged; the run counts as done") from error


def _record(tree: dict[str, Any], folder: Path) -> RunRecord:
    rejection = tree.get("rejection")
    objects = tuple(
        ResultObject(
            kind=ObjectKind(item["kind"]),
            path=folder / item["file"],
            sha256=item["sha256"],
            sop_class_uid=item["sop_class_uid"],
            sop_instance_uid=item["sop_instance_uid"],
            series_instance_uid=item["series_instance_uid"],
            study_instance_uid=item["study_instance_uid"],
        )
        for item in tree["objects"]
    )
    return RunRecord(
        label=tree["label"],
        generation=tree["generation"],
        manifest_key=tree["manifest_key"],
        study_instance_uid=tree["study_instance_uid"],
        series_instance_uid=tree["series_instance_uid"],
        outcome=Outcome(tree["outcome"]) if tree["outcome"] else None,
        lesions=tree["lesions"],
        objects=objects,
        supersedes=tree["supersedes"],
        superseded_by=tree["superseded_by"],
        failure=tree["failure"],
        rejection=None
        if rejection is None
        else Rejection(Reason(rejection["reason"]), rejection["message"], rejection["subject"]),
        cancelled=tree.get("cancelled", ""),
        started_at=float(tree.get("started_at", 0.0)),
        finished_at=float(tree.get("finished_at", 0.0)),
        worker=tree.get("worker", ""),
    )


def records_of(results: Path, series_instance_uid: str) -> dict[str, Path]:
    """Return the folders of a series' finished runs by the key of the manifest that each answers."""
    folders: dict[str, Path] = {}
    for path in results.glob(f"{series_instance_uid}.*/{RECORD}"):
        try:
            record = read_record(path.parent)
        except ResultError as error:
            _log.error("%s", error)
            continue
        # 1.2.3.g1 is found for 1.2.3, and so is 1.2.3.4.g1 of another series.
        if record is not None and record.series_instance_uid == series_instance_uid:
            folders[record.manifest_key] = path.parent
    return folders
