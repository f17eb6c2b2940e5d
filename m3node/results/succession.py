"""What ties one generation of findings to the one before (decision 8 of the design)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from m3node.m3.lesion import Lesion
from m3node.results.findings import Findings, PredecessorReport
from m3node.results.objects import ObjectKind, ResultObject
from m3node.results.uids import tracking_uid

REPORT_KINDS = frozenset(
    {ObjectKind.REPORT, ObjectKind.VOLUMES, ObjectKind.REPORT_ENHANCED, ObjectKind.VOLUMES_ENHANCED}
)


def assign_tracking(findings: Findings) -> Findings:
    """Give every lesion its Tracking Unique Identifier; for a generation that follows no other."""
    return replace(findings, tracking_uids=tuple(str(tracking_uid(findings, lesion)) for lesion in findings.lesions))


def succeed(findings: Findings, previous: Findings, previous_objects: Iterable[ResultObject]) -> Findings:
    """Let findings follow those of the generation before.

    A lesion is the one it was when the two lie in the same place: their centroids are no farther apart than half the
    longer of their longest diameters, and each earlier lesion is continued once at most (assignment with the least
    sum of distances). Patient coordinates decide, since slice indices move when a late slice arrives.

    Parameters
    ----------
    findings : Findings
        The newer generation's.
    previous : Findings
        The older generation's, with its tracking UIDs.
    previous_objects : iterable of ResultObject
        What was built for it; its SRs become predecessors (PS3.3 C.17.2, Predecessor Documents Sequence).

    Returns
    -------
    Findings
        ``findings`` with ``tracking_uids`` and ``predecessors`` set.
    """
    uids = list(assign_tracking(findings).tracking_uids)
    for new, old in _matches(findings.lesions, previous.lesions):
        uids[new] = previous.tracking_uids[old]
    predecessors = tuple(
        PredecessorReport(
            study_instance_uid=item.study_instance_uid,
            series_instance_uid=item.series_instance_uid,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
        )
        for item in sorted(previous_objects, key=lambda item: item.kind.value)
        if item.kind in REPORT_KINDS
    )
    return replace(findings, tracking_uids=tuple(uids), predecessors=predecessors)


def _matches(new: tuple[Lesion, ...], old: tuple[Lesion, ...]) -> list[tuple[int, int]]:
    if not new or not old:
        return []
    distance = np.linalg.norm(_centroids(new)[:, None] - _centroids(old)[None], axis=2)
    reach = 0.5 * np.maximum.outer(_diameters(new), _diameters(old))
    # A pair out of reach must never win over one within: it costs more than all that are within together.
    cost = np.where(distance <= reach, distance, 1e6)
    rows, columns = linear_sum_assignment(cost)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if distance[i, j] <= reach[i, j]]


def _centroids(lesions: tuple[Lesion, ...]) -> npt.NDArray[np.float64]:
    return np.array([lesion.measurements.centroid_mm for lesion in lesions], dtype=np.float64)


def _diameters(lesions: tuple[Lesion, ...]) -> npt.NDArray[np.float64]:
    return np.array([lesion.measurements.longest.length_mm for lesion in lesions], dtype=np.float64)
