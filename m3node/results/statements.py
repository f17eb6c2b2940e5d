"""What the structured reports share: who observed, what is measured, and the sentences that no code can say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from m3node import identity
from m3node.liver.region import LiverRegion
from m3node.m3.lesion import Lesion
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results import terms
from m3node.results.attention.references import evidence as attention_evidence
from m3node.results.attention.references import explanations
from m3node.results.dress import MANUFACTURER, Job, dress, plain
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.results.segmentation import mask_words, tracking_identifier
from m3node.results.uids import derived_uid

ENHANCED_KINDS = frozenset({ObjectKind.REPORT_ENHANCED, ObjectKind.VOLUMES_ENHANCED})


def build_report(job: Job, kind: ObjectKind, groups: Sequence[Any], *, evidence: Sequence[Dataset] = ()) -> bytes:
    """Build an SR document with a TID 1500 Measurement Report.

    Parameters
    ----------
    job : Job
        Findings and source.
    kind : ObjectKind
        Decides between Comprehensive 3D SR (PS3.3 A.35.13) and Enhanced SR (A.35.2), UIDs and series.
    groups : sequence
        Measurement groups (TID 1410, 1411 or 1501); at least one.
    evidence : sequence of Dataset
        What the content refers to besides the source series.
    """
    report = MeasurementReport(
        observation_context=_observation_context(),
        procedure_reported=terms.CT_PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=[job.source.reference_image(k) for k in library_slices(job)],
    )
    for sentence in (NOT_FOR_CLINICAL_USE, *sentences(job.findings)):
        report[0].ContentSequence.append(comment(sentence))
    document = EnhancedSR if kind in ENHANCED_KINDS else Comprehensive3DSR
    sop = document(
        evidence=[*job.source.evidence(), *evidence, *attention_evidence(job)],
        content=report[0],
        is_complete=job.findings.outcome is not Outcome.INCOMPLETE,
        is_final=False,
        previous_versions=_predecessors(job.findings) or None,
        **job.attributes(kind),
    )
    if job.findings.outcome is Outcome.INCOMPLETE:
        sop.CompletionFlagDescription = plain(sentences(job.findings)[0], 64)
    return dress(sop, job)


def library_slices(job: Job) -> list[int]:
    """The slices that the image library describes: the key slices, else where the liver is largest, else the middle."""
    lesions, region = job.findings.lesions, job.findings.region
    chosen = sorted({lesion.key_slice for lesion in lesions})
    if not chosen and region is not None and region.parenchyma.count:
        areas = region.parenchyma.data.sum(axis=(1, 2))
        chosen = [region.parenchyma.start[0] + int(np.argmax(areas))]
    return chosen or [len(job.source.slices) // 2]


def sentences(findings: Findings) -> tuple[str, ...]:
    """What is said of the whole run, in words: the outcome first."""
    count = len(findings.lesions)
    detector = findings.detector
    said = {
        Outcome.LESIONS: f"{count} liver lesion{'s' if count != 1 else ''} found.",
        Outcome.NO_LESION: "No liver lesion found.",
        Outcome.NO_LIVER: "No liver found in this series: it was not searched for lesions.",
        Outcome.INCOMPLETE: f"Incomplete: {findings.views_read} of {findings.views_total} views could be read.",
        Outcome.REJECTED: "This series was not processed.",
    }[findings.outcome]
    lines = [said]
    if findings.outcome is Outcome.INCOMPLETE:
        lines.append(f"{count} liver lesion(s) found in what could be read; others may have been missed.")
    elif findings.views_read < findings.views_total:
        lines.append(f"{findings.views_read} of {findings.views_total} views could be read.")
    if _is_cut_off(findings.region):
        lines.append("The liver reaches the first or the last slice of this series: what lies beyond was not searched.")
    lines.append(f"Detector: {detector.name} {detector.version}. {detector.description}")
    return tuple(plain(line, 1024) for line in lines)


def _is_cut_off(region: LiverRegion | None) -> bool:
    """Whether the liver goes on where the series ends: "no lesion" is then said of a part only."""
    extent = None if region is None else region.parenchyma.extent
    return (
        region is not None and extent is not None and (extent[0][0] == 0 or extent[0][1] == region.parenchyma.shape[0])
    )


def comment(text: str) -> TextContentItem:
    """Return a Comment (121106, DCM)."""
    return TextContentItem(
        name=terms.COMMENT, value=plain(text, 1024), relationship_type=RelationshipTypeValues.CONTAINS
    )


def lesion_comment(lesion: Lesion) -> TextContentItem:
    """Say of a lesion what no code says: where its voxels come from, its score and its votes.

    Number and size come first: OHIF shows this text as the measurement's name, dcmtk's ``dsr2html`` shows the numbers
    without theirs.
    """
    measured = lesion.measurements
    size = f"{measured.longest.length_mm:.0f} x {measured.perpendicular.length_mm:.0f} mm"
    words = [
        f"{tracking_identifier(lesion)}, {size}.",
        f"{mask_words(lesion)}.",
        f"Score {lesion.score:.3g} ({terms.SCORE_WORDS[lesion.score_kind]}).",
        f"Seen in {lesion.votes} of {lesion.views} views.",
    ]
    if math.isfinite(measured.hu_liver_mean):
        words.append(f"Liver around it: {measured.hu_liver_mean:.0f} HU on average.")
    x, y, z = measured.centroid_mm
    words.append(f"Centre at x {x:.1f}, y {y:.1f}, z {z:.1f} mm (LPS).")
    return comment(" ".join(words))


def algorithm(findings: Findings) -> AlgorithmIdentification:
    """Who found it (TID 4019)."""
    detector = findings.detector
    parameters = [f"{name}={value}" for name, value in detector.parameters]
    if detector.weights:
        parameters.append(f"weights={detector.weights}")
    return AlgorithmIdentification(
        name=plain(detector.name, 1024),
        version=plain(detector.version, 1024),
        parameters=[plain(parameter, 1024) for parameter in parameters] or None,
        manufacturer=MANUFACTURER,
    )


def tracking(lesion: Lesion, uid: str) -> TrackingIdentifier:
    """Tracking identifier and UID of a lesion."""
    return TrackingIdentifier(uid=uid, identifier=tracking_identifier(lesion))


def liver_site() -> FindingSite:
    """Finding site: the liver."""
    return FindingSite(anatomic_location=terms.LIVER)


def diameters(lesion: Lesion) -> list[Measurement]:
    """Longest axial diameter, and the one perpendicular to it, in mm."""
    measured = lesion.measurements
    return [
        *_measurement(terms.LONG_AXIS, measured.longest.length_mm, terms.MILLIMETRE),
        *_measurement(terms.SHORT_AXIS, measured.perpendicular.length_mm, terms.MILLIMETRE),
    ]


def attenuations(lesion: Lesion) -> list[Measurement]:
    """Mean and standard deviation of HU over the lesion."""
    measured = lesion.measurements
    return [
        *_measurement(terms.ATTENUATION, measured.hu_mean, terms.HOUNSFIELD, derivation=terms.MEAN),
        *_measurement(terms.ATTENUATION, measured.hu_sd, terms.HOUNSFIELD, derivation=terms.STANDARD_DEVIATION),
    ]


def volume(lesion: Lesion) -> list[Measurement]:
    """Volume in millilitres."""
    return _measurement(terms.VOLUME, lesion.measurements.volume_ml, terms.MILLILITRE, decimals=3)


def statement_group(job: Job) -> MeasurementsAndQualitativeEvaluations:
    """Say that there is no lesion, or why nothing can be said (TID 1501).

    Only ``NO_LESION`` answers "Lesion: Absent". No liver, or views that could not be read, are never an absence.
    """
    findings = job.findings
    k = library_slices(job)[0]
    source = job.source.slices[k]
    evaluations = []
    if findings.outcome is Outcome.NO_LESION:
        evaluations.append(QualitativeEvaluation(name=terms.LESION, value=terms.ABSENT))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid("tracking", "statement", job.digest), identifier="Liver"
        ),
        source_images=[
            SourceImageForMeasurementGroup(source.sop_class_uid, source.sop_instance_uid, job.source.frame_numbers(k))
        ],
        finding_sites=[liver_site()],
        algorithm_id=algorithm(findings),
        qualitative_evaluations=evaluations or None,
    )
    group[0].ContentSequence.append(comment(sentences(findings)[0]))
    group[0].ContentSequence.extend(explanations(job, None))
    return group


def _measurement(
    name: hd.sr.CodedConcept,
    value: float,
    unit: hd.sr.CodedConcept,
    *,
    derivation: hd.sr.CodedConcept | None = None,
    decimals: int = 1,
) -> list[Measurement]:
    """One measurement, or none where there was nothing to measure.

    Rounded to what an image can tell: a report that says 20.877 mm claims a micrometre. ``findings.json`` has the rest.
    """
    if not math.isfinite(value):
        return []
    return [Measurement(name=name, value=round(float(value), decimals), unit=unit, derivation=derivation)]


def _observation_context() -> ObservationContext:
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                uid=identity.DEVICE_UID, name="m3node", manufacturer_name=MANUFACTURER, model_name=MANUFACTURER
            ),
        )
    )


def _predecessors(findings: Findings) -> list[Dataset]:
    listed = []
    for report in findings.predecessors:
        item = Dataset()
        item.StudyInstanceUID = report.study_instance_uid
        item.SeriesInstanceUID = report.series_instance_uid
        item.SOPClassUID = report.sop_class_uid
        item.SOPInstanceUID = report.sop_instance_uid
        listed.append(item)
    return listed
