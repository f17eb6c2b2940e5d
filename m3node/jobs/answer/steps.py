"""The steps of one run, each resumable from what the one before left in the run's folder.

``find`` leaves ``findings.json``, what it names beside it, and ``overlay.png``; ``build`` leaves the DICOM objects;
``run.json`` is written last (`m3node.jobs.answer.closing`), and without it a run is not done. They take and give paths
and small values, and pixels stay in files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Collection
from pathlib import Path

from m3node import __version__
from m3node.detectors.protocols import Detection, Detector, KeepsAttention
from m3node.detectors.registry import load_detector
from m3node.faults import fault_point
from m3node.imaging.assemble import assemble
from m3node.imaging.volume import CTVolume
from m3node.intake.series.manifest import Manifest
from m3node.jobs.answer.record import RunRecord, read_record
from m3node.liver.find import find_liver
from m3node.liver.region import LiverRegion
from m3node.m3.lesion import Lesion
from m3node.m3.lesions import characterise
from m3node.m3.method import M3Method
from m3node.metrics import counting
from m3node.progress import Progress
from m3node.rejection import Rejection
from m3node.results.attention.choice import choose_attention
from m3node.results.build import DEFAULT_KINDS, build_objects
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind, ResultObject
from m3node.results.overlay import draw_overlay
from m3node.results.store import load_findings, save_findings
from m3node.results.succession import assign_tracking, succeed
from m3node.settings import Settings

_log = logging.getLogger(__name__)

FINDINGS = "findings.json"
OVERLAY = "overlay.png"

RUN_KINDS = DEFAULT_KINDS
"""What every run builds, as far as there is something to show; destinations may ask for more."""


def settings_digest(settings: Settings) -> str:
    """SHA-256 over the settings that change results; where they go and how they travel does not count."""
    sections = ("eligibility", "selection", "liver", "m3", "detector", "results")
    tree = {section: getattr(settings, section).model_dump(mode="json") for section in sections}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def make_detector(settings: Settings) -> Detector:
    """Load the configured detector; a crop detector is made a whole one by the M3 method.

    With ``results.attention_map`` it is asked to keep its attention; one that cannot is used without.
    """
    detector = load_detector(settings.detector)
    if settings.results.attention_map:
        if isinstance(detector, KeepsAttention):
            detector.keep_attention = True
        else:
            _log.warning("detector %s cannot tell where it looked: no attention map", settings.detector.name)
    return detector if isinstance(detector, Detector) else M3Method(detector, settings.m3)


def find(
    manifest: Manifest,
    folder: Path,
    settings: Settings,
    detector: Detector,
    progress: Progress,
    *,
    previous: Path | None = None,
    volume: CTVolume | None = None,
) -> Findings:
    """Assemble the volume, find liver and lesions, and persist the findings and the picture.

    Parameters
    ----------
    manifest : Manifest
        The generation to answer.
    folder : Path
        The run's folder; findings that lie there already are kept and returned.
    settings : Settings
        The tree.
    detector : Detector
        Loaded once for many runs.
    progress : callable
        Told of stages.
    previous : Path, optional
        Folder of the run that this generation supersedes.
    volume : CTVolume, optional
        The manifest's volume, where it is assembled already.

    Raises
    ------
    InputRejected
        The pixels cannot be read.
    InferenceError
        The detector failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FINDINGS).exists():
        findings = load_findings(folder)
        if not (folder / OVERLAY).exists() and findings.outcome is not Outcome.REJECTED:
            draw_overlay(volume or assemble(manifest, progress=progress), findings, folder / OVERLAY)
        return findings
    if volume is None:
        with counting.timed("assemble"):
            volume = assemble(manifest, progress=progress)
    seg_paths = [Path(manifest.root) / seg.path for seg in reversed(manifest.liver_segs)]
    with counting.timed("liver"):
        region = find_liver(volume, settings.liver, seg_paths=seg_paths, progress=progress)
    with counting.timed("detect"):
        findings = look(volume, region, key=manifest.key, settings=settings, detector=detector, progress=progress)
    record = read_record(previous) if previous is not None else None
    if previous is not None and record is not None:
        findings = succeed(findings, load_findings(previous, masks=False), record.objects)
    else:
        findings = assign_tracking(findings)
    save_findings(findings, folder)
    fault_point("detect.inside")
    with counting.timed("picture"):
        draw_overlay(volume, findings, folder / OVERLAY)
    return findings


def look(
    volume: CTVolume,
    region: LiverRegion | None,
    *,
    key: str,
    settings: Settings,
    detector: Detector,
    progress: Progress,
) -> Findings:
    """Run the detector in the region and measure what it finds; tracking is not assigned yet."""
    detection = Detection(candidates=(), views_total=0, views_read=0)
    lesions: tuple[Lesion, ...] = ()
    if region is not None:
        detection = detector.find(volume, region, progress)
        lesions = characterise(volume, region, detection, settings.m3)
    return Findings(
        manifest_key=key,
        outcome=_outcome(region, detection, lesions, settings),
        content_time=dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        software_version=__version__,
        detector=detector.identity,
        settings_digest=settings_digest(settings),
        region=region,
        lesions=lesions,
        views_total=detection.views_total,
        views_read=detection.views_read,
        failures=detection.failures,
        tracking_uids=(),
        predecessors=(),
        rejection=None,
        attention=choose_attention(detection.attention, lesions, region) if settings.results.attention_map else (),
    )


def _outcome(
    region: LiverRegion | None, detection: Detection, lesions: tuple[Lesion, ...], settings: Settings
) -> Outcome:
    if region is None:
        return Outcome.NO_LIVER
    # Also with lesions: a report of half a search that calls itself complete hides what the other half may hold.
    unread = detection.views_total - detection.views_read
    if unread > settings.m3.max_unreadable * detection.views_total:
        return Outcome.INCOMPLETE
    return Outcome.LESIONS if lesions else Outcome.NO_LESION


def build(
    manifest: Manifest, findings: Findings, folder: Path, settings: Settings, *, kinds: Collection[ObjectKind]
) -> tuple[ResultObject, ...]:
    """Build the objects that are missing in the run's folder."""
    if findings.outcome is Outcome.REJECTED:
        return ()
    return build_objects(findings, manifest, folder, settings, kinds=kinds)


def record_of(
    manifest: Manifest, findings: Findings, objects: tuple[ResultObject, ...], *, rejection: Rejection | None = None
) -> RunRecord:
    """Return the record that closes a run."""
    return RunRecord(
        label=manifest.stack.label,
        generation=manifest.generation,
        manifest_key=manifest.key,
        study_instance_uid=manifest.study_instance_uid,
        series_instance_uid=manifest.stack.series_instance_uid,
        outcome=findings.outcome,
        lesions=len(findings.lesions),
        objects=objects,
        supersedes=manifest.supersedes,
        superseded_by="",
        failure=rejection.message if rejection else "",
        rejection=rejection or findings.rejection,
    )
