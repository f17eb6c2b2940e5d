"""The worker: takes manifests that have no finished run, oldest first, and answers them one at a time.

The files are the queue: a manifest without ``results/<label>.g<generation>/run.json`` is work. A kill at any moment
leaves a run that is taken up again where its files end. The durable job engine replaces this loop, not the files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from m3node.delivery.outbox import cancel, enqueue, kinds_for
from m3node.detectors.protocols import Detector
from m3node.errors import M3NodeError, ResultError
from m3node.intake.series.manifest import Manifest, read_manifest
from m3node.jobs.answer.failure import failure, transient
from m3node.jobs.answer.record import RECORD, RunRecord, read_record, records_of, write_record
from m3node.jobs.answer.rejections import rejected_findings
from m3node.jobs.answer.steps import FINDINGS, RUN_KINDS, build, find, make_detector, record_of, settings_digest
from m3node.layout import DataLayout
from m3node.logs import describe
from m3node.process import supervisor
from m3node.progress import silent
from m3node.rejection import Reason, Rejection
from m3node.results.objects import ObjectKind
from m3node.results.store import load_findings, save_findings
from m3node.settings import Settings

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
PAUSE_SECONDS = 10.0
"""Pause after trouble with the disk or memory, before the same run is taken up again."""
STARTS = "starts"
CRASH_LIMIT = 3
"""A run that was begun so often under one supervisor and never ended took its worker down: it is set aside."""


def run_worker(settings: Settings, stop: threading.Event) -> None:
    """Answer manifests until ``stop`` is set; the run at hand is finished first."""
    layout = DataLayout(settings.data_dir)
    layout.create()
    detector = make_detector(settings)
    queue = Queue(layout)
    while not stop.is_set():
        path = queue.next()
        if path is None:
            stop.wait(POLL_SECONDS)
            continue
        try:
            answer(path, layout, settings, detector)
        except Exception as error:  # noqa: BLE001 - one run must not keep all others from being answered
            trouble = transient(error)
            if trouble is None:
                # Its own failures become a recorded reason; what comes here is a damaged file of the data folder.
                what = str(error) if isinstance(error, M3NodeError) else describe(error)
                _log.critical("run %s cannot be begun or closed and is passed over: %s", path.stem, what)
                queue.skip(path)
                continue
            _log.error("run %s waits: %s; trying again in %g s", path.stem, trouble.strerror, PAUSE_SECONDS)
            queue.defer(path)
            stop.wait(PAUSE_SECONDS)


class Queue:
    """The manifests without a finished run, oldest first."""

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout
        self._done: set[str] = set()
        self._waiting: list[Path] = []
        self._stamp = -1
        self._deferred: dict[str, int] = {}

    def next(self) -> Path | None:
        """Return the oldest unanswered manifest, or None."""
        stamp = self._layout.manifests.stat().st_mtime_ns
        if stamp != self._stamp:
            self._scan()
            # A name linked within the clock's tick of this scan would not change the stamp: look again next time.
            settled = time.time_ns() - stamp > 50_000_000
            self._stamp = stamp if settled else -1
        while self._waiting:
            path = self._waiting[0]
            if not (self._layout.results / path.stem / RECORD).exists():
                return path
            self._done.add(path.name)
            self._waiting.pop(0)
        return None

    def skip(self, path: Path) -> None:
        """Do not offer this manifest again; a restart does."""
        self._done.add(path.name)
        self._waiting.remove(path)

    def defer(self, path: Path) -> None:
        """Let the others go first: the trouble may be one file's, a bad sector for one, and not the whole disk's.

        The stack's later generations stay behind it, so that an archive never gets the older answer last.
        """
        self._deferred[_label(path)] = self._deferred.get(_label(path), 0) + 1
        self._waiting.sort(key=self._turn)

    def _scan(self) -> None:
        new = [path for path in self._layout.manifests.glob("*.json") if path.name not in self._done]
        self._waiting = sorted(new, key=self._turn)

    def _turn(self, path: Path) -> tuple[int, int, str]:
        return self._deferred.get(_label(path), 0), path.stat().st_mtime_ns, path.name


def _label(path: Path) -> str:
    return path.stem.rpartition(".g")[0]


def answer(path: Path, layout: DataLayout, settings: Settings, detector: Detector) -> RunRecord:
    """Take one manifest from wherever its files end to a finished run with its deliveries queued.

    Parameters
    ----------
    path : Path
        The manifest; its stem names the run.
    layout : DataLayout
        The data folder.
    settings : Settings
        The tree.
    detector : Detector
        Loaded once.

    Raises
    ------
    OSError, M3NodeError
        The disk is full or fails (`m3node.jobs.answer.failure.transient` tells); the run stays where it is and is
        taken up again.
    """
    manifest = read_manifest(path)
    folder = layout.results / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    older = _older(manifest, layout)
    newer = _newer(manifest, layout)
    if newer and not (folder / FINDINGS).exists():
        record = _superseded(manifest, newer)
        _log.info("run %s is superseded before it began", path.stem)
    else:
        record = _run(manifest, folder, older, settings, detector)
        for run in older:
            cancel(layout, run.name, f"superseded by {path.stem}")
        enqueue(layout, path.stem, record.objects, settings.destinations)
    return write_record(record, folder)


def _run(manifest: Manifest, folder: Path, older: Sequence[Path], settings: Settings, detector: Detector) -> RunRecord:
    run = folder.name
    _log.info("run %s begins: %d slices", run, len(manifest.slices))
    started = time.monotonic()
    rejection = _crashed(folder, run)
    if rejection is None:
        try:
            previous = next((run for run in older if (record := read_record(run)) and record.objects), None)
            findings = find(manifest, folder, settings, detector, silent, previous=previous)
            objects = build(manifest, findings, folder, settings, kinds=_kinds(settings))
        except Exception as error:
            if transient(error) is not None:
                (folder / STARTS).unlink(missing_ok=True)  # the disk's trouble; no start is counted against the run
                raise
            rejection = failure(error, run)
        else:
            seconds = time.monotonic() - started
            _log.info("run %s: %s, %d lesions, %.1f s", run, findings.outcome.value, len(findings.lesions), seconds)
            return record_of(manifest, findings, objects)
    _log.warning("run %s: not answered with objects: %s", run, rejection.message)
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


def _crashed(folder: Path, run: str) -> Rejection | None:
    """Count this start; return a reason when earlier ones each took the worker down."""
    starts = folder / STARTS
    before = starts.read_text(encoding="ascii", errors="replace").split() if starts.exists() else []
    if before.count(supervisor()) >= CRASH_LIMIT:
        message = f"the worker died {CRASH_LIMIT} times while it processed {run}; it is set aside, the input is kept"
        return Rejection(Reason.FAILED, message, run)
    with starts.open("a", encoding="ascii") as stream:
        stream.write(f"{supervisor()}\n")
    return None


def _older(manifest: Manifest, layout: DataLayout) -> tuple[Path, ...]:
    """Follow what the manifest supersedes; newest first. A stack's label may have changed between generations."""
    folders = records_of(layout.results, manifest.stack.series_instance_uid)
    older: list[Path] = []
    key = manifest.supersedes
    while key in folders:
        folder = folders.pop(key)
        older.append(folder)
        record = read_record(folder)
        key = record.supersedes if record is not None else ""
    return tuple(older)


def _newer(manifest: Manifest, layout: DataLayout) -> str:
    """Return the key of a manifest that supersedes this one, or an empty string."""
    for path in layout.manifests.glob(f"{manifest.stack.series_instance_uid}.*json"):
        try:
            other = read_manifest(path)
        except M3NodeError as error:
            _log.error("%s", error)  # its own turn says more; this run need not wait for it
            continue
        if other.supersedes == manifest.key:
            return other.key
    return ""


def _kinds(settings: Settings) -> tuple[ObjectKind, ...]:
    wanted = {kind for destination in settings.destinations for kind in kinds_for(destination)}
    return tuple(kind for kind in ObjectKind if kind in wanted or kind in RUN_KINDS)


def _superseded(manifest: Manifest, by: str) -> RunRecord:
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
        superseded_by=by,
        failure="",
    )
