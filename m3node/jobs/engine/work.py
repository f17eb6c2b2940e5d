"""What the steps of a job do, whichever engine calls them: each finds what an earlier try of it has left in the folder.

A step gives back a few words, never pixels, and raises for no fault of the input: an error that leaves a workflow would
end it for good and write its words, which may quote a patient, into the database.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3node.delivery.outbox import box_of, waiting
from m3node.errors import DatabaseError, M3NodeError
from m3node.faults import fault_point
from m3node.imaging.assemble import assemble
from m3node.imaging.volume import CTVolume
from m3node.intake.series.manifest import Manifest, read_manifest
from m3node.jobs.answer import starts
from m3node.jobs.answer.closing import close, wanted_kinds
from m3node.jobs.answer.failure import failure, transient
from m3node.jobs.answer.generations import newer_generation, older_runs, run_before
from m3node.jobs.answer.record import read_record
from m3node.jobs.answer.steps import FINDINGS, OVERLAY, build, find
from m3node.jobs.engine.bench import Bench, Cancelled
from m3node.logs import correlated
from m3node.metrics import counting
from m3node.rejection import Reason, Rejection
from m3node.results.store import load_findings

_log = logging.getLogger(__name__)

BEHIND_SECONDS = 3.0
"""How long a generation waits before it looks again whether the one before it has ended."""

Words = dict[str, Any]
"""What a step gives back. ``end``: how the run ends, where closing it comes next; ``waits``: why it is to be taken up
again after ``delay`` seconds, with its ``priority``; ``over``: nothing is left to do. With none of them, the next step
follows."""


def work_on(bench: Bench, step: str, run: str, end: Words | None = None) -> Words:
    """Do a step of a run, its start counted; whatever happens becomes words.

    Parameters
    ----------
    bench : Bench
        What the jobs of this process share.
    step : str
        ``assemble``, ``detect``, ``build`` or ``close``.
    run : str
        Stem of the manifest, and name of the folder in ``results/``.
    end : dict, optional
        For ``close``: ``end`` of the words of the step before.

    Raises
    ------
    Abandoned
        The process is to end, and the time that it had is over.
    """
    try:
        manifest = read_manifest(bench.layout.manifests / f"{run}.json")
    except M3NodeError as error:
        trouble = transient(error)
        if trouble is not None:
            return _waits(bench, run, "routine", trouble.strerror or "", bench.settings.jobs.retry_seconds)
        # Damaged: there is nothing left of which a record could say that it ended.
        _log.critical("run %s cannot be begun and is passed over: %s", run, error)
        return {"over": "damaged manifest"}
    with correlated(run=run, study=manifest.study_instance_uid, series=manifest.stack.series_instance_uid):
        return _work_on(bench, manifest, step, end or {})


def _work_on(bench: Bench, manifest: Manifest, step: str, end: Words) -> Words:
    run = Path(manifest.file_name).stem
    words = _tried(bench, manifest, step, end)
    if step == "close" and "end" in words and "rejection" not in end:
        # It cannot be closed as it was meant to be: it ends with the reason why.
        words = _tried(bench, manifest, step, words["end"])
    if step == "close" and "end" in words:
        # Not even the reason can be recorded: a damaged file of the data folder.
        _log.critical("run %s cannot be closed and is passed over: %s", run, words["end"]["rejection"]["message"])
        return {"over": "not closed"}
    return words


def _tried(bench: Bench, manifest: Manifest, step: str, end: Words) -> Words:
    """Do a step, its start counted."""
    run = Path(manifest.file_name).stem
    folder = bench.layout.results / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The first step looks by itself: it may find that the run has ended.
        if step != "assemble" and not end and (reason := starts.cancel_reason(folder)):
            return {"end": {"cancelled": reason}}
        crashed = starts.begin(folder, step, bench.settings.jobs.poison_limit)
        # Nothing comes after the close that could write down why: the little that is left of it is tried all the same.
        if crashed is not None and not (step == "close" and "rejection" in end):
            return _rejected(crashed)
        with bench.step(folder, step):
            words = _WORK[step](bench, manifest, folder, end)
        starts.end(folder, step)
    except Cancelled as cancelled:
        return {"end": {"cancelled": cancelled.reason}}
    except Exception as error:  # noqa: BLE001 - one run must not keep all others from being answered
        return _failed(bench, manifest, folder, step, error)
    fault_point(f"{step}.after")
    return words


def _failed(bench: Bench, manifest: Manifest, folder: Path, step: str, error: Exception) -> Words:
    run = folder.name
    trouble = transient(error)
    try:
        starts.take_back(folder, step)
    except OSError as also:
        trouble = trouble or also
    if trouble is not None:
        _log.error("run %s waits: %s", run, trouble.strerror)
        return _waits(bench, run, manifest.priority, trouble.strerror or "", bench.settings.jobs.retry_seconds)
    return _rejected(failure(error, run))


def _assemble(bench: Bench, manifest: Manifest, folder: Path, _end: Words) -> Words:
    run = folder.name
    if (record := read_record(folder)) is not None:
        bench.ledger.note_record(record, run=run, finished_at=record.finished_at)
        return {"over": "answered before"}
    if reason := starts.cancel_reason(folder):
        return {"end": {"cancelled": reason}}
    if before := run_before(manifest, bench.layout):
        return _waits(bench, run, manifest.priority, f"{before} goes first", BEHIND_SECONDS)
    # Written before the look at newer ones: of two generations that begin at once, one sees the other.
    starts.mark_begun(folder)
    bench.ledger.note_started(run, bench.name)
    kept = (folder / FINDINGS).exists()
    if not kept and (newer := newer_generation(manifest, bench.layout)):
        _log.info("run %s is superseded before it began", run)
        return {"end": {"superseded_by": newer}}
    _log.info("run %s begins: %d slices", run, len(manifest.slices))
    if not (kept and (folder / OVERLAY).exists()):
        _volume(bench, manifest, run)
    return {}


def _detect(bench: Bench, manifest: Manifest, folder: Path, _end: Words) -> Words:
    run = folder.name
    started = time.monotonic()
    volume = None if (folder / FINDINGS).exists() and (folder / OVERLAY).exists() else _volume(bench, manifest, run)
    previous = next(
        (older for older in older_runs(manifest, bench.layout) if (record := read_record(older)) and record.objects),
        None,
    )
    findings = find(
        manifest, folder, bench.settings, bench.detector, bench.progress(run), previous=previous, volume=volume
    )
    bench.let_volume_go()
    seconds = time.monotonic() - started
    _log.info("run %s: %s, %d lesions, %.1f s", run, findings.outcome.value, len(findings.lesions), seconds)
    return {}


def _build(bench: Bench, manifest: Manifest, folder: Path, _end: Words) -> Words:
    bench.ledger.note_stage(folder.name, "building objects", 0, 1)
    with counting.timed("build"):
        build(manifest, load_findings(folder), folder, bench.settings, kinds=wanted_kinds(bench.settings))
    return {}


def _close(bench: Bench, manifest: Manifest, folder: Path, end: Words) -> Words:
    rejection = end.get("rejection")
    begun = time.monotonic()
    record = close(
        manifest,
        bench.layout,
        bench.settings,
        worker=bench.name,
        note=bench.ledger.note_entry,
        rejection=None
        if rejection is None
        else Rejection(Reason(rejection["reason"]), rejection["message"], folder.name),
        superseded_by=end.get("superseded_by", ""),
        cancelled=end.get("cancelled", ""),
    )
    counting.stage_took("close", time.monotonic() - begun)
    counting.stage_took("answer", max(0.0, record.finished_at - manifest.created_at))
    bench.ledger.note_record(record, run=folder.name, finished_at=record.finished_at)
    _hand_over(bench, folder.name)
    return {"over": record.outcome.value if record.outcome else "ended"}


def _hand_over(bench: Bench, run: str) -> None:
    """Have the run's deliveries sent; what the database refuses now, the reconciler hands over."""
    try:
        for destination in bench.settings.destinations:
            for entry in waiting(box_of(bench.layout, destination.name), run):
                bench.dispatcher.enqueue_delivery(entry)
    except DatabaseError as error:
        _log.warning("deliveries of run %s are handed over later: %s", run, error)


def _volume(bench: Bench, manifest: Manifest, run: str) -> CTVolume:
    """The volume that `assemble` left in this process, or read anew: by another process, or after a restart."""
    volume = bench.volume_of(run)
    if volume is None:
        tell = bench.progress(run)

        def halfway(stage: str, done: int, total: int) -> None:
            if 2 * done >= total:
                fault_point("assemble.inside")
            tell(stage, done, total)

        with counting.timed("assemble"):
            volume = assemble(manifest, progress=halfway)
        bench.keep_volume(run, volume)
    return volume


def _rejected(rejection: Rejection) -> Words:
    return {"end": {"rejection": {"reason": rejection.reason.value, "message": rejection.message}}}


def _waits(bench: Bench, run: str, priority: str, why: str, delay: float) -> Words:
    bench.ledger.note_waiting(run, why)
    return {"waits": why, "delay": delay, "priority": priority}


_WORK: dict[str, Callable[[Bench, Manifest, Path, Words], Words]] = {
    "assemble": _assemble,
    "detect": _detect,
    "build": _build,
    "close": _close,
}
