"""Reads lesions from the DICOM objects that came back to the archive: they are the result, not files of the node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from m3node.demo.archive import Kept
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.results import terms

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_MEASUREMENT_GROUP = "125007"
_TRACKING_UID = "112040"
_TRACKING_IDENTIFIER = "112039"
_REFERENCED_SEGMENT = "121191"


@dataclass(frozen=True, slots=True)
class ReportedLesion:
    """A lesion as ``volumes.sr`` states it (TID 1411).

    Attributes
    ----------
    label : str
        Tracking Identifier.
    tracking_uid : str
        The same in SEG and both SRs.
    longest_mm, perpendicular_mm : float
        Axial diameters.
    volume_ml, mean_hu : float
        Over the lesion's segment.
    """

    label: str
    tracking_uid: str
    longest_mm: float
    perpendicular_mm: float
    volume_ml: float
    mean_hu: float


def read_lesions(objects: Sequence[Kept]) -> tuple[ReportedLesion, ...]:
    """Return the lesions of all volumetric measurement groups, in the reports' order."""
    lesions = []
    for item in objects:
        if item.sop_class_uid != COMPREHENSIVE_3D_SR:
            continue
        for group in _groups(pydicom.dcmread(item.path)):
            content = list(group.ContentSequence)
            if any(_code(part) == _REFERENCED_SEGMENT for part in content):
                lesions.append(_lesion(content))
    return tuple(lesions)


def read_masks(objects: Sequence[Kept], geometry: PatientGeometry) -> dict[str, VoxelMask]:
    """Return the SEG's tracked segments on a grid that its frames lie on, by Tracking UID."""
    masks: dict[str, VoxelMask] = {}
    for item in objects:
        if item.sop_class_uid != SegmentationStorage:
            continue
        seg = pydicom.dcmread(item.path)
        tracked = {
            int(segment.SegmentNumber): str(segment.TrackingUID)
            for segment in seg.SegmentSequence
            if "TrackingUID" in segment
        }
        planes: dict[str, dict[int, np.ndarray]] = {}
        pixels = np.atleast_3d(seg.pixel_array) if seg.NumberOfFrames > 1 else seg.pixel_array[None]
        for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
            number = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            if number in tracked:
                position = [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
                k = round(float(geometry.to_voxel(position)[0]))
                planes.setdefault(tracked[number], {})[k] = plane > 0
        for uid, slices in planes.items():
            masks[uid] = _stacked(slices, geometry)
    return masks


def _stacked(slices: dict[int, np.ndarray], geometry: PatientGeometry) -> VoxelMask:
    first, last = min(slices), max(slices)
    data = np.zeros((last - first + 1, *geometry.shape[1:]), dtype=np.bool_)
    for k, plane in slices.items():
        data[k - first] = plane
    return VoxelMask(shape=geometry.shape, start=(first, 0, 0), data=data).cropped()


def _groups(item: Dataset) -> Iterator[Dataset]:
    for part in item.get("ContentSequence", ()):
        if part.ValueType == "CONTAINER" and _code(part) == _MEASUREMENT_GROUP:
            yield part
        else:
            yield from _groups(part)


def _lesion(content: Sequence[Dataset]) -> ReportedLesion:
    return ReportedLesion(
        label=next(str(part.TextValue) for part in content if _code(part) == _TRACKING_IDENTIFIER),
        tracking_uid=next(str(part.UID) for part in content if _code(part) == _TRACKING_UID),
        longest_mm=_number(content, terms.LONG_AXIS.value),
        perpendicular_mm=_number(content, terms.SHORT_AXIS.value),
        volume_ml=_number(content, terms.VOLUME.value),
        mean_hu=_number(content, terms.ATTENUATION.value, derivation=terms.MEAN.value),
    )


def _number(content: Sequence[Dataset], name: str, *, derivation: str = "") -> float:
    for part in content:
        if part.ValueType != "NUM" or _code(part) != name:
            continue
        modifiers = {
            str(below.ConceptCodeSequence[0].CodeValue)
            for below in part.get("ContentSequence", ())
            if below.ValueType == "CODE"
        }
        if not derivation or derivation in modifiers:
            return float(part.MeasuredValueSequence[0].NumericValue)
    return float("nan")


def _code(part: Dataset) -> str:
    return str(part.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in part else ""
