"""``volumes.sr.dcm``: each lesion as a segment with its volume (TID 1500 with a TID 1411 volumetric group per lesion).

Planar and volumetric groups are kept in documents of their own: validators mistake one for the other in a common one.
"""

from __future__ import annotations

from highdicom.sr import (
    CodedConcept,
    ReferencedSegment,
    SourceImageForSegmentation,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from m3node.m3.lesion import Lesion
from m3node.results import terms
from m3node.results.attention.references import explanations
from m3node.results.dress import Job
from m3node.results.objects import ObjectKind
from m3node.results.segmentation import lesion_segment
from m3node.results.statements import (
    algorithm,
    attenuations,
    build_report,
    diameters,
    lesion_comment,
    liver_site,
    statement_group,
    tracking,
    volume,
)

_SOURCE_IMAGE = CodedConcept("121233", "DCM", "Source image for segmentation")


def build_volume_report(job: Job, kind: ObjectKind) -> bytes:
    """Build the report of volumes, as Comprehensive 3D SR or, for ``VOLUMES_ENHANCED``, Enhanced SR."""
    findings = job.findings
    groups = [
        _volumetric_group(job, lesion, uid)
        for lesion, uid in zip(findings.lesions, findings.tracking_uids, strict=True)
    ]
    if not groups:
        return build_report(job, kind, [statement_group(job)])
    return build_report(job, kind, groups, evidence=[_segmentation(job)])


def _volumetric_group(job: Job, lesion: Lesion, uid: str) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    segment = ReferencedSegment(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=job.uid(ObjectKind.SEGMENTATION),
        segment_number=lesion_segment(lesion),
        source_images=_source_images(job, lesion),
    )
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(lesion, uid),
        referenced_segment=segment,
        finding_type=terms.LESION,
        finding_sites=[liver_site()],
        algorithm_id=algorithm(job.findings),
        measurements=[*volume(lesion), *diameters(lesion), *attenuations(lesion)],
    )
    group[0].ContentSequence.append(lesion_comment(lesion))
    group[0].ContentSequence.extend(explanations(job, lesion.number))
    return group


def _source_images(job: Job, lesion: Lesion) -> list[SourceImageForSegmentation]:
    """One reference for each instance that the lesion's voxels lie on, with its frames where it has several."""
    extent = lesion.mask.extent
    first, last = extent[0] if extent is not None else (lesion.key_slice, lesion.key_slice + 1)
    frames: dict[tuple[str, str], list[int]] = {}
    for source in job.source.slices[first:last]:
        numbers = frames.setdefault((source.sop_class_uid, source.sop_instance_uid), [])
        if source.frame_number is not None:
            numbers.append(source.frame_number)
    images = []
    for (sop_class_uid, sop_instance_uid), numbers in frames.items():
        image = SourceImageForSegmentation(sop_class_uid, sop_instance_uid, numbers or None)
        # highdicom writes this meaning in capitals; Pixelmed's validator compares it with the standard's.
        image.ConceptNameCodeSequence = [_SOURCE_IMAGE]
        images.append(image)
    return images


def _segmentation(job: Job) -> Dataset:
    reference = Dataset()
    reference.StudyInstanceUID = job.source.study_instance_uid
    reference.SeriesInstanceUID = job.series_uid(ObjectKind.SEGMENTATION)
    reference.SOPClassUID = SegmentationStorage
    reference.SOPInstanceUID = job.uid(ObjectKind.SEGMENTATION)
    return reference
