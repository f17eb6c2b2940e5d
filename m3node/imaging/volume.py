"""A CT volume in HU with its patient geometry: what every later stage looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.imaging.geometry import PatientGeometry

HUArray = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class SliceSource:
    """Which frame of which instance a slice came from.

    Attributes
    ----------
    frame_number : int or None
        From 1 for a multi-frame instance; None for a single-frame one, which is referenced without a frame number.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None


@dataclass(frozen=True, slots=True, eq=False)
class CTVolume:
    """A CT stack in Hounsfield units.

    Attributes
    ----------
    hu : ndarray of int16, shape (slices, rows, columns)
        Read-only. Slices in manifest order.
    geometry : PatientGeometry
        Voxel to patient.
    sources : tuple of SliceSource
        One for each slice; empty for a NIfTI volume.
    """

    hu: HUArray
    geometry: PatientGeometry
    sources: tuple[SliceSource, ...]
