"""Builds a run's objects from its findings, each once: what is in the folder stays (decision 6 of the design)."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Collection
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from m3node.errors import ResultError
from m3node.faults import fault_point
from m3node.intake.series.manifest import Manifest
from m3node.results.attention.capture import build_capture
from m3node.results.attention.parametric_map import build_attention_map
from m3node.results.attention.references import has_attention
from m3node.results.dress import Job
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind, ResultObject
from m3node.results.placing import place
from m3node.results.presentation import build_presentation
from m3node.results.report import build_lesion_report
from m3node.results.segmentation import build_segmentation, has_segmentation
from m3node.results.source import read_source
from m3node.results.uids import instance_uid, run_digest
from m3node.results.volumes import build_volume_report
from m3node.settings import Settings

logger = logging.getLogger(__name__)

DEFAULT_KINDS = (
    ObjectKind.SEGMENTATION,
    ObjectKind.REPORT,
    ObjectKind.VOLUMES,
    ObjectKind.PRESENTATION,
    ObjectKind.ATTENTION_CAPTURE,
    ObjectKind.ATTENTION_MAP,
)
"""What every destination gets, as far as there is something to show; Enhanced SRs are built only for one that asks."""

_BUILDERS: dict[ObjectKind, Callable[[Job], bytes]] = {
    ObjectKind.SEGMENTATION: build_segmentation,
    ObjectKind.REPORT: lambda job: build_lesion_report(job, ObjectKind.REPORT),
    ObjectKind.VOLUMES: lambda job: build_volume_report(job, ObjectKind.VOLUMES),
    ObjectKind.PRESENTATION: build_presentation,
    ObjectKind.ATTENTION_CAPTURE: build_capture,
    ObjectKind.ATTENTION_MAP: build_attention_map,
    ObjectKind.REPORT_ENHANCED: lambda job: build_lesion_report(job, ObjectKind.REPORT_ENHANCED),
    ObjectKind.VOLUMES_ENHANCED: lambda job: build_volume_report(job, ObjectKind.VOLUMES_ENHANCED),
}


_CONDITIONS: dict[ObjectKind, Callable[[Job], bool]] = {
    ObjectKind.SEGMENTATION: has_segmentation,
    ObjectKind.ATTENTION_CAPTURE: has_attention,
    ObjectKind.ATTENTION_MAP: has_attention,
}
"""Kinds that there is not always something of."""


def build_objects(
    findings: Findings,
    manifest: Manifest,
    folder: Path,
    settings: Settings,
    *,
    kinds: Collection[ObjectKind] | None = None,
) -> tuple[ResultObject, ...]:
    """Build what is missing, and return everything that was asked for.

    Parameters
    ----------
    findings : Findings
        As ``load_findings`` gives them: with tracking UIDs, and persisted before.
    manifest : Manifest
        The generation that they answer.
    folder : Path
        The run's folder.
    settings : Settings
        Only ``results`` matters.
    kinds : collection of ObjectKind, optional
        ``DEFAULT_KINDS`` when not given.

    Returns
    -------
    tuple of ResultObject
        The SEG first, since reports refer to it. No SEG without a liver, no capture and no map without attention;
        nothing for a rejected stack.

    Raises
    ------
    ResultError
        Findings and manifest do not belong together, an object in the folder is of other findings, the source cannot
        be referenced, or the disk refuses.
    """
    if findings.outcome is Outcome.REJECTED:
        return ()
    if findings.manifest_key != manifest.key:
        raise ResultError(
            f"findings of generation {findings.manifest_key[:12]} cannot be reported on generation {manifest.key[:12]}"
        )
    digest = run_digest(findings)
    wanted = [kind for kind in _BUILDERS if kind in (DEFAULT_KINDS if kinds is None else kinds)]
    missing = [kind for kind in wanted if not (folder / kind.file_name).exists()]
    built = {kind: _of_run(folder, kind, digest) for kind in wanted if kind not in missing}
    if missing:
        job = Job(
            findings=findings,
            source=read_source(manifest),
            settings=settings.results,
            digest=digest,
            manifest=manifest,
            kinds=frozenset(wanted),
        )
        for kind in missing:
            if not _CONDITIONS.get(kind, _always)(job):
                continue
            place(folder / kind.file_name, _BUILDERS[kind](job))
            fault_point("build.inside")
            built[kind] = _of_run(folder, kind, digest)
            logger.info("built %s of series %s", kind.value, manifest.stack.label)
    return tuple(built[kind] for kind in wanted if kind in built)


def _always(_job: Job) -> bool:
    return True


def _of_run(folder: Path, kind: ObjectKind, digest: str) -> ResultObject:
    item = read_object(folder, kind)
    if item.sop_instance_uid != instance_uid(digest, kind):
        raise ResultError(
            f"{item.path} was built from other findings, and what is built is never replaced: use another folder"
        )
    return item


def read_object(folder: Path, kind: ObjectKind) -> ResultObject:
    """Describe an object that lies in a run's folder.

    Raises
    ------
    ResultError
        It is not there or not readable.
    """
    path = folder / kind.file_name
    try:
        content = path.read_bytes()
        ds = pydicom.dcmread(
            io.BytesIO(content),
            stop_before_pixels=True,
            specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"],
        )
        return ResultObject(
            kind=kind,
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            study_instance_uid=str(ds.StudyInstanceUID),
        )
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
