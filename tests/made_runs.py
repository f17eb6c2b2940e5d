"""A run as its files say it, for tests of what is kept and told of runs: its manifest, its record, a delivery of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from m3node.delivery.entry import Entry
from m3node.intake.series.manifest import Manifest, SliceRef, StackKey
from m3node.jobs.answer.record import RunRecord
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind, ResultObject
from made_headers import HEADER


def run_manifest(series: str = "1.2", *, study: str = "1.1", stack: str = "", **changes: Any) -> Manifest:
    """Generation 1 of a stack of one slice, unless something else is said."""
    header = replace(HEADER, study_instance_uid=study, series_instance_uid=series)
    made = Manifest(
        key=f"key of {series}",
        stack=StackKey(series, stack),
        generation=1,
        supersedes="",
        root="/spool",
        instances=(header,),
        slices=(SliceRef(0, 0),),
        liver_segs=(),
        senders=("PACS",),
        priority="routine",
        created_at=100.5,
    )
    return replace(made, **changes)


def run_object(run: str) -> ResultObject:
    """The report of a run."""
    return ResultObject(ObjectKind.REPORT, Path(run, "report.sr.dcm"), "ab", "1.5", f"9.{run}", "1.7", "1.1")


def run_record(of: Manifest, **changes: Any) -> RunRecord:
    """What closes the run of a manifest: two lesions, and no object."""
    full = RunRecord(
        label=of.stack.label,
        generation=of.generation,
        manifest_key=of.key,
        study_instance_uid=of.study_instance_uid,
        series_instance_uid=of.stack.series_instance_uid,
        outcome=Outcome.LESIONS,
        lesions=2,
        objects=(),
        supersedes=of.supersedes,
        superseded_by="",
        failure="",
        started_at=101.5,
        finished_at=103.5,
        worker="0",
    )
    return replace(full, **changes)


def run_entry(run: str, destination: str = "pacs", **changes: Any) -> Entry:
    """The delivery of a run's report, which waits."""
    full = Entry(
        name=f"{run}.report.sr",
        destination=destination,
        run=run,
        kind="report.sr",
        order=1,
        path=f"results/{run}/report.sr.dcm",
        sha256="ab",
        sop_class_uid="1.5",
        sop_instance_uid=f"9.{run}",
        study_instance_uid="1.1",
        queued_at=103.5,
    )
    return replace(full, **changes)
