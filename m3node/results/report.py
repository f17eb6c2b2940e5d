"""``report.sr.dcm``: each lesion as a box on its key slice (TID 1500 with a TID 1410 planar group per lesion)."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import numpy.typing as npt
from highdicom.sr import (
    CoordinatesForMeasurement,
    GraphicTypeValues,
    ImageRegion,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
)
from highdicom.sr.value_types import ContentSequence, NumContentItem
from pydicom.sr.codedict import codes

from m3node.detectors.protocols import Box2D
from m3node.m3.lesion import Lesion
from m3node.results import terms
from m3node.results.attention.references import explanations
from m3node.results.dress import Job
from m3node.results.objects import ObjectKind
from m3node.results.statements import (
    algorithm,
    attenuations,
    build_report,
    diameters,
    lesion_comment,
    liver_site,
    statement_group,
    tracking,
)


def build_lesion_report(job: Job, kind: ObjectKind) -> bytes:
    """Build the report of boxes, as Comprehensive 3D SR or, for ``REPORT_ENHANCED``, Enhanced SR."""
    findings = job.findings
    groups = [
        _planar_group(job, lesion, uid) for lesion, uid in zip(findings.lesions, findings.tracking_uids, strict=True)
    ]
    return build_report(job, kind, groups or [statement_group(job)])


def rectangle(box: Box2D, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Return a box as a closed polyline in image coordinates.

    Returns
    -------
    ndarray, shape (5, 2)
        (column, row) of its corners, clockwise from the top left, the first one again at the end; kept inside
        the image, whose own corner is (0, 0) (PS3.3 C.18.6.1.1).
    """
    r0, r1 = np.clip((box.r0, box.r1), 0.0, shape[1])
    c0, c1 = np.clip((box.c0, box.c1), 0.0, shape[2])
    return np.array([(c0, r0), (c1, r0), (c1, r1), (c0, r1), (c0, r0)], dtype=np.float64)


def _planar_group(job: Job, lesion: Lesion, uid: str) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    source = job.source.slices[lesion.key_slice]
    image = SourceImageForRegion(
        source.sop_class_uid, source.sop_instance_uid, job.source.frame_numbers(lesion.key_slice)
    )
    corners = rectangle(lesion.key_box.box, job.source.shape)
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(lesion, uid),
        referenced_region=ImageRegion(GraphicTypeValues.POLYLINE, corners, image),
        finding_type=terms.LESION,
        finding_sites=[liver_site()],
        algorithm_id=algorithm(job.findings),
        geometric_purpose=codes.cid219.BoundedBy,
        measurements=[*diameters(lesion), *attenuations(lesion)],
    )
    content = group[0].ContentSequence
    for item in content:
        if isinstance(item, NumContentItem):
            _infer_from(item, CoordinatesForMeasurement(GraphicTypeValues.POLYLINE, corners, deepcopy(image)))
    content.append(lesion_comment(lesion))
    content.extend(explanations(job, lesion.number))
    return group


def _infer_from(measurement: NumContentItem, coordinates: CoordinatesForMeasurement) -> None:
    """Repeat the box below a measurement.

    OHIF makes an annotation of a measurement only when the coordinates are its own (TID 300, INFERRED FROM);
    highdicom's planar group refuses them as redundant with the group's region, so they are added afterwards.
    """
    if "ContentSequence" not in measurement:
        measurement.ContentSequence = ContentSequence()
    measurement.ContentSequence.append(coordinates)
