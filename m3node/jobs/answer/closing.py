"""The end of a run: its deliveries wait in the outbox, and then ``run.json`` says that it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from m3node.delivery.entry import Entry
from m3node.delivery.queueing import enqueue, kinds_for
from m3node.delivery.recall import cancel
from m3node.delivery.routing import routed
from m3node.errors import ResultError
from m3node.faults import fault_point
from m3node.intake.series.manifest import Manifest
from m3node.jobs.answer.failure import transient
from m3node.jobs.answer.generations import older_runs
from m3node.jobs.answer.record import RunRecord, write_record
from m3node.jobs.answer.rejections import rejected_findings
from m3node.jobs.answer.starts import begun_at, cancel_reason, forget
from m3node.jobs.answer.steps import FINDINGS, RUN_KINDS, build, record_of, settings_digest
from m3node.layout import DataLayout
from m3node.rejection import Rejection
from m3node.results.objects import ObjectKind
from m3node.results.store import load_findings, save_findings
from m3node.settings import Settings

_log = logging.getLogger(__name__)


def wanted_kinds(settings: Settings) -> tuple[ObjectKind, ...]:
    """Return what a run builds: what every run does, and what a destination asks for besides."""
    wanted = {kind for destination in settings.destinations for kind in kinds_for(destination)}
    return tuple(kind for kind in ObjectKind if kind in wanted or kind in RUN_KINDS)


def close(
    manifest: Manifest,
    layout: DataLayout,
    settings: Settings,
    *,
    worker: str,
    note: Callable[[Entry], object],
    rejection: Rejection | None = None,
    superseded_by: str = "",
    cancelled: str = "",
) -> RunRecord:
    """End a run: take back what earlier generations have not sent, queue its own objects, write ``run.json``.

    Parameters
    ----------
    manifest : Manifest
        The generation that was answered.
    layout : DataLayout
        The data folder.
    settings : Settings
        The tree.
    worker : str
        Who ends it.
    note : callable
        Told of each delivery that waits now or was taken back.
    rejection : Rejection, optional
        Why it has no objects.
    superseded_by : str
        Key of the newer generation that made it pointless before it began.
    cancelled : str
        Why a person took it back.

    Returns
    -------
    RunRecord
        What ``run.json`` says; when it was there before, that stays.
    """
    run = Path(manifest.file_name).stem
    folder = layout.results / run
    if superseded_by or cancelled:
        record = ended_without(manifest, superseded_by=superseded_by, cancelled=cancelled)
    else:
        record = _answered(manifest, folder, settings, rejection)
        for older in older_runs(manifest, layout):
            for entry in cancel(layout, older.name, f"superseded by {run}"):
                note(entry)
        for destination, objects in routed(settings, manifest.senders, record.objects):
            for entry in enqueue(layout, run, objects, [destination], priority=manifest.priority):
                note(entry)
    fault_point("close.inside")
    started_at = 0.0 if superseded_by else begun_at(folder)
    record = write_record(replace(record, started_at=started_at, worker=worker), folder)
    # By a person, while the deliveries were being written. Asked after the record is there, since who cancels looks for
    # the record after the wish is: one of the two sees the other.
    if unwanted := record.cancelled or cancel_reason(folder):
        for entry in cancel(layout, run, unwanted):
            note(entry)
    forget(folder)
    return record


def ended_without(manifest: Manifest, *, superseded_by: str = "", cancelled: str = "") -> RunRecord:
    """Return the record of a run that ends without having looked."""
    return RunRecord(
        label=manifest.stack.label,
        generation=manifest.generation,
        manifest_key=manifest.key,
        study_instance_uid=manifest.study_instance_uid,
        series_instance_uid=manifest.stack.series_instance_uid,
        outcome=None,
        lesions=0,
        objects=(),
        supersedes=manifest.supersedes,
        superseded_by=superseded_by,
        failure="",
        cancelled=cancelled,
    )


def _answered(manifest: Manifest, folder: Path, settings: Settings, rejection: Rejection | None) -> RunRecord:
    if rejection is None:
        findings = load_findings(folder)
        # Nothing is built here that is there: this reads what the step before has left.
        return record_of(manifest, findings, build(manifest, findings, folder, settings, kinds=wanted_kinds(settings)))
    _log.warning("run %s: not answered with objects: %s", folder.name, rejection.message)
    if not (folder / FINDINGS).exists():
        digest = settings_digest(settings)
        rejected = rejected_findings(rejection, manifest_key=manifest.key, settings_digest=digest)
        save_findings(rejected, folder)
        return record_of(manifest, rejected, ())
    # Found, but not built: the findings stay as they are, and the record says what is missing.
    try:
        findings = load_findings(folder)
    except ResultError as error:
        if transient(error) is not None:
            raise
        findings = rejected_findings(rejection, manifest_key=manifest.key)
    return record_of(manifest, findings, (), rejection=rejection)
