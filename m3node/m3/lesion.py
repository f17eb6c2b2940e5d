"""A lesion as it is reported: voxels, boxes, key slice and measurements."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from m3node.detectors.protocols import ScoreKind, SliceBox
from m3node.imaging.mask import VoxelMask

Point3 = tuple[float, float, float]


class MaskOrigin(StrEnum):
    """How a lesion's voxels were decided."""

    DETECTOR = "detector"
    HU_SPLIT = "hu-split"
    ELLIPSOID = "ellipsoid"


@dataclass(frozen=True, slots=True)
class Diameter:
    """A distance on the lesion's largest axial slice.

    Attributes
    ----------
    length_mm : float
        mm.
    start, end : Point3
        End points in voxel coordinates (k, r, c), voxel centres.
    """

    length_mm: float
    start: Point3
    end: Point3


@dataclass(frozen=True, slots=True)
class Measurements:
    """What is measured on a lesion.

    Attributes
    ----------
    longest : Diameter
        Longest axial diameter.
    perpendicular : Diameter
        Longest axial diameter perpendicular to it, on the same slice.
    volume_ml : float
        Millilitres.
    hu_mean, hu_sd : float
        HU over the mask.
    hu_liver_mean : float
        Mean HU of the parenchyma outside every lesion.
    centroid_mm : Point3
        Patient coordinates, LPS.
    """

    longest: Diameter
    perpendicular: Diameter
    volume_ml: float
    hu_mean: float
    hu_sd: float
    hu_liver_mean: float
    centroid_mm: Point3


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """A reported lesion.

    Attributes
    ----------
    number : int
        From 1, largest score first; also names the SEG's segment (liver is segment 1, lesion n is n + 1).
    mask : VoxelMask
        Never empty.
    mask_origin : MaskOrigin
        Anything but ``DETECTOR`` is reported as "estimated from boxes".
    boxes : tuple of SliceBox
        One a slice at most, by slice.
    key_slice : int
        ``k`` of the slice with the largest area.
    key_box : SliceBox
        The box that SR and GSPS show on the key slice; encloses the mask there.
    score : float
        Fused score.
    votes, views : int
        Views that saw it, of the views that could have.
    """

    number: int
    mask: VoxelMask
    mask_origin: MaskOrigin
    boxes: tuple[SliceBox, ...]
    key_slice: int
    key_box: SliceBox
    score: float
    score_kind: ScoreKind
    votes: int
    views: int
    measurements: Measurements
