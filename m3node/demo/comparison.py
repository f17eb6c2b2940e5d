"""Planted against found lesions of a phantom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3node.demo.returned import ReportedLesion
from m3node.evaluation.matching import match
from m3node.evaluation.phantom import Phantom
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask

MATCH_IOU = 0.2
"""3-D boxes that overlap at least so much are the same lesion: an 8 mm lesion is three slices thick, and one slice more
or less takes a third of the overlap."""

MISSES_ALLOWED = 1
FALSE_ALLOWED = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A planted lesion, and the one that was found there.

    Attributes
    ----------
    number : int
        From 1, smallest first.
    planted_mm : float
        Longest diameter as planted.
    found_mm : float or None
        Longest axial diameter as reported; None when it was missed.
    iou : float or None
        Of the two 3-D boxes.
    distance_mm : float or None
        Between the centres of mass.
    """

    number: int
    planted_mm: float
    found_mm: float | None
    iou: float | None
    distance_mm: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All planted lesions, and what was found besides.

    Attributes
    ----------
    rows : tuple of Row
        One a planted lesion.
    false : tuple of ReportedLesion
        Found where none was planted.
    """

    rows: tuple[Row, ...]
    false: tuple[ReportedLesion, ...]

    @property
    def found(self) -> int:
        """How many planted lesions were found."""
        return sum(1 for row in self.rows if row.found_mm is not None)

    @property
    def good_enough(self) -> bool:
        """At most one planted lesion missed, and at most one false one."""
        return self.found >= len(self.rows) - MISSES_ALLOWED and len(self.false) <= FALSE_ALLOWED


def compare(phantom: Phantom, lesions: Sequence[ReportedLesion], masks: Mapping[str, VoxelMask]) -> Comparison:
    """Match reported lesions with planted ones.

    Parameters
    ----------
    phantom : Phantom
        The truth.
    lesions : sequence of ReportedLesion
        From the SR.
    masks : mapping of str to VoxelMask
        From the SEG, by Tracking UID; a lesion without a voxel counts as false.
    """
    with_voxels = {uid: mask for uid, mask in masks.items() if mask.extent is not None}
    found = [lesion for lesion in lesions if lesion.tracking_uid in with_voxels]
    shown = [with_voxels[lesion.tracking_uid] for lesion in found]
    matching = match(
        [extent for mask in shown if (extent := mask.extent) is not None],
        [extent for true in phantom.lesions if (extent := true.mask.extent) is not None],
        MATCH_IOU,
    )
    pairs = {pair.truth: pair for pair in matching.pairs}
    rows = []
    for index, true in enumerate(phantom.lesions):
        pair = pairs.get(index)
        if pair is None:
            rows.append(Row(index + 1, true.diameter_mm, None, None, None))
            continue
        apart = _centre(shown[pair.found], phantom.geometry) - _centre(true.mask, phantom.geometry)
        rows.append(
            Row(
                number=index + 1,
                planted_mm=true.diameter_mm,
                found_mm=found[pair.found].longest_mm,
                iou=pair.iou,
                distance_mm=float(np.linalg.norm(apart)),
            )
        )
    matched = {found[pair.found].tracking_uid for pair in matching.pairs}
    return Comparison(rows=tuple(rows), false=tuple(lesion for lesion in lesions if lesion.tracking_uid not in matched))


def _centre(mask: VoxelMask, geometry: PatientGeometry) -> np.ndarray:
    """Centre of mass in patient mm."""
    voxels = np.argwhere(mask.data).mean(axis=0) + np.asarray(mask.start)
    return np.asarray(geometry.to_patient(voxels))
