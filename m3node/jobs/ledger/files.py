"""Reads from the files what the ledger remembers, and no more: thousands of series are read again at a rebuild."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, replace
from pathlib import Path

from m3node.delivery.entry import Entry, from_json
from m3node.delivery.state import ENDS, DeliveryState
from m3node.errors import DeliveryError, M3NodeError, ResultError
from m3node.intake.series.manifest import StackKey, read_manifest
from m3node.jobs.answer.record import RunRecord, read_record
from m3node.jobs.ledger.rows import ManifestFacts
from m3node.jobs.ledger.states import SeriesState
from m3node.jobs.ledger.upsert import Row
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.results.store import FINDINGS_FILE

_MANIFEST = "m3node.manifest/1"
"""Format that is read quickly; every other one is left to `read_manifest`."""

_INSTANCE = ("path", "sop_instance_uid", "sop_class_uid", "series_instance_uid", "sha256", "sender", "received_at")


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What the index says of a series: its row, and those of its instances."""

    series: Row
    instances: list[Row]


def read_series(path: Path) -> SeriesFacts | None:
    """Read ``index/<series>.jsonl``; a damaged line is passed over, as the keeper will.

    The file is the keeper's: nothing is repaired here.

    Returns
    -------
    SeriesFacts or None
        None when no line says which study the series is of.
    """
    data = path.read_bytes()
    instances: dict[str, Row] = {}
    study = ""
    settled = False
    purged_at: float | None = None
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            ((kind, value),) = json.loads(line).items()
            settled = kind == "settled"
            if kind == "header":
                row = {name: value[name] for name in _INSTANCE}
                instances[row["path"]] = row
                study = study or value["study_instance_uid"]
            elif kind == "purged":
                purged_at = float(value["at"])
            elif kind in ("refused", "own"):
                # <study>/<series>/<sop>.dcm
                file = value if kind == "own" else value["path"]
                study = study or file.partition("/")[0]
        except (ValueError, KeyError, TypeError, AttributeError):
            settled = False
    if not study:
        return None
    times = [row["received_at"] for row in instances.values()]
    answered = SeriesState.ANSWERED if settled else SeriesState.RECEIVING
    series: Row = {
        "series_instance_uid": path.stem,
        "study_instance_uid": study,
        "state": SeriesState.PURGED if purged_at is not None else answered,
        "instances": len(instances),
        "first_received_at": min(times, default=0.0),
        "last_received_at": max(times, default=0.0),
        "purged_at": purged_at,
    }
    return SeriesFacts(series, list(instances.values()))


def read_manifest_facts(path: Path) -> ManifestFacts:
    """Read what the ledger takes from a manifest, without its instances, which are nearly all of it.

    Raises
    ------
    M3NodeError
        It is missing or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise M3NodeError(f"the manifest {path.name} cannot be read: {error.strerror}") from error
    try:
        return _quick_facts(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not as this release writes it, or damaged: read in full, which says so.
        return ManifestFacts.of(read_manifest(path))


def _quick_facts(content: bytes) -> ManifestFacts:
    """Cut the long lists out before parsing; a quotation mark inside a value is escaped, so that a key is no value."""
    before, _, after = content.partition(b',"instances":[')
    instances, _, tail = after.partition(b'],"slices":[')
    slices, _, rest = tail.partition(b'],"liver_segs":[')
    _, _, end = rest.rpartition(b'],"senders":[')
    head = json.loads(before + b"}")
    if head["format"] != _MANIFEST:
        raise ValueError("another format")
    last = json.loads(b'{"senders":[' + end)
    first, _ = json.JSONDecoder().raw_decode(instances.decode())
    return ManifestFacts(
        key=head["key"],
        stack=StackKey(*head["stack"]),
        generation=head["generation"],
        study_instance_uid=first["study_instance_uid"],
        supersedes=head["supersedes"],
        slices=len(json.loads(b"[" + slices + b"]")),
        priority=last["priority"],
        created_at=last["created_at"],
    )


def read_end(folder: Path) -> tuple[RunRecord, float] | None:
    """Read how a run ended, and when; None when it has not.

    Raises
    ------
    ResultError
        ``run.json`` or, where an older release did not say the reason in it, ``findings.json`` is damaged.
    OSError
        The disk refuses.
    """
    record = read_record(folder)
    if record is None:
        return None
    if record.outcome is Outcome.REJECTED and record.rejection is None:
        rejection, at = read_rejection(folder)
        record = replace(record, rejection=rejection, finished_at=record.finished_at or at)
    return record, record.finished_at or (folder / "run.json").stat().st_mtime


def read_rejection(folder: Path) -> tuple[Rejection, float]:
    """Read the reason in a folder that `m3node.jobs.answer.rejections.record_rejection` made, and its time.

    Raises
    ------
    ResultError
        There is none, or it is damaged.
    """
    try:
        tree = json.loads((folder / FINDINGS_FILE).read_bytes())
        rejection = tree["rejection"]
        at = dt.datetime.fromisoformat(tree["content_time"]).timestamp()
        return Rejection(Reason(rejection["reason"]), rejection["message"], rejection["subject"]), at
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{FINDINGS_FILE} of {folder.name} gives no reason ({type(error).__name__})") from error


def read_entry(path: Path, filed: str = "") -> Entry:
    """Read a delivery.

    Parameters
    ----------
    path : Path
        Its file.
    filed : str
        ``sent`` or ``aside``, where it is filed; an older release did not say the state in the file.

    Raises
    ------
    DeliveryError
        It is no entry, or that of another name.
    OSError
        It is gone, or the disk refuses.
    """
    entry = from_json(path.read_bytes())
    if entry.name != path.stem:
        raise DeliveryError(f"{path.name} holds the entry of another name", retryable=False)
    if filed and entry.state not in ENDS:
        cancelled = entry.last_error.startswith("superseded by ")
        aside = DeliveryState.CANCELLED if cancelled else DeliveryState.DEAD
        return replace(entry, state=DeliveryState.SENT if filed == "sent" else aside)
    if not filed and entry.state in ENDS:
        # A person moved it back up, to have it sent again.
        return replace(entry, state=DeliveryState.WAITING, finished_at=0.0)
    return entry
