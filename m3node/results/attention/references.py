"""What ties the attention's objects to their sources and to the reports, in both directions.

A report names the frames in its measurement groups as (130401, DCM, "Visual explanation"), which TID 1410, 1411 and
1501 have for such images. The capture and the map name the reports in Referenced Instance Sequence (PS3.3 C.12.4),
the slices in Source Image Sequence or Derivation Image, and both in the Common Instance Reference module (C.12.2).
"""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import CodedConcept, ImageContentItem, RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
)

from m3node.results.dress import Job
from m3node.results.objects import ObjectKind

_SOP_CLASS = {
    ObjectKind.ATTENTION_CAPTURE: MultiFrameTrueColorSecondaryCaptureImageStorage,
    ObjectKind.ATTENTION_MAP: ParametricMapStorage,
    ObjectKind.REPORT: Comprehensive3DSRStorage,
    ObjectKind.VOLUMES: Comprehensive3DSRStorage,
    ObjectKind.REPORT_ENHANCED: EnhancedSRStorage,
    ObjectKind.VOLUMES_ENHANCED: EnhancedSRStorage,
}
_PICTURES = (ObjectKind.ATTENTION_CAPTURE, ObjectKind.ATTENTION_MAP)
_REPORTS = tuple(kind for kind in _SOP_CLASS if kind not in _PICTURES)

_EXPLANATION = CodedConcept.from_code(codes.DCM.VisualExplanation)
_REPORT = CodedConcept.from_code(codes.DCM.ImagingMeasurementReport)


def has_attention(job: Job) -> bool:
    """Whether there is attention to show: otherwise there is neither capture nor map."""
    return bool(job.findings.attention)


def explanations(job: Job, lesion: int | None) -> list[ImageContentItem]:
    """What a report's group says: which frame of the capture and of the map shows where the model looked.

    Parameters
    ----------
    job : Job
        Findings and what is built of them.
    lesion : int or None
        The group's lesion; None for the statement of a report without one.
    """
    frames = [number for number, item in enumerate(job.findings.attention, start=1) if item.lesion == lesion]
    return [
        ImageContentItem(
            name=_EXPLANATION,
            referenced_sop_class_uid=_SOP_CLASS[kind],
            referenced_sop_instance_uid=job.uid(kind),
            referenced_frame_numbers=[number],
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        for number in frames
        for kind in _pictures(job)
    ]


def evidence(job: Job) -> list[Dataset]:
    """The capture and the map, for a report's evidence; none without attention."""
    listed = []
    for kind in _pictures(job) if has_attention(job) else ():
        item = _reference(job, kind)
        item.SOPClassUID, item.SOPInstanceUID = item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID
        item.StudyInstanceUID, item.SeriesInstanceUID = job.source.study_instance_uid, job.series_uid(kind)
        del item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID
        listed.append(item)
    return listed


def refer_to_reports(sop: Dataset, job: Job) -> None:
    """Name the run's reports in a capture or map."""
    reports = [kind for kind in _REPORTS if kind in job.kinds]
    if not reports:
        return
    sop.ReferencedInstanceSequence = [_reference(job, kind) for kind in reports]
    for item in sop.ReferencedInstanceSequence:
        item.PurposeOfReferenceCodeSequence = [_REPORT]


def refer_in_common(sop: Dataset, job: Job) -> None:
    """List every referenced instance by series (Common Instance Reference)."""
    source = Dataset()
    source.SeriesInstanceUID = job.source.series_instance_uid
    source.ReferencedInstanceSequence = list(source_instances(job))
    listed = [source]
    for kind in _REPORTS:
        if kind in job.kinds:
            series = Dataset()
            series.SeriesInstanceUID = job.series_uid(kind)
            series.ReferencedInstanceSequence = [_reference(job, kind)]
            listed.append(series)
    sop.ReferencedSeriesSequence = listed


def source_instances(job: Job) -> Iterator[Dataset]:
    """Each instance that holds a shown slice, once."""
    slices = [job.source.slices[item.slice_index] for item in job.findings.attention]
    for sop_class_uid, sop_instance_uid in dict.fromkeys((k.sop_class_uid, k.sop_instance_uid) for k in slices):
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        yield item


def _pictures(job: Job) -> list[ObjectKind]:
    return [kind for kind in _PICTURES if kind in job.kinds]


def _reference(job: Job, kind: ObjectKind) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = _SOP_CLASS[kind]
    item.ReferencedSOPInstanceUID = job.uid(kind)
    return item
