"""Where a voxel lies in the patient: one affine map, and the words for its axes.

Three coordinate systems meet in m3node, and names say which is meant:

``voxel``
    ``(k, r, c)``: slice, row, column, zero-based, at voxel centres; the order of the array's axes.
``patient``
    ``(x, y, z)`` in mm, LPS (PS3.3 C.7.6.2.1.1).
``image``
    ``(column, row)`` of one frame in DICOM's SCOORD sense: the *top left corner* of the first pixel is (0, 0), its
    centre (0.5, 0.5) (PS3.3 C.18.6.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PatientGeometry:
    """The grid of a volume in patient space.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        Maps ``(k, r, c, 1)`` to ``(x, y, z, 1)``, patient mm, LPS.
    positions : ndarray, shape (n, 3)
        Image Position (Patient) of every slice, as stored; the affine's slices are evenly spaced, these are not
        quite where spacing varies within the tolerance.
    shape : tuple of int
        Slices, rows, columns.
    """

    affine: FloatArray
    positions: FloatArray
    shape: tuple[int, int, int]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between slices, rows and columns."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_patient(self, voxels: npt.ArrayLike) -> FloatArray:
        """Map voxel coordinates ``(..., 3)`` in (k, r, c) to patient mm."""
        points = np.asarray(voxels, dtype=np.float64)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_voxel(self, patient: npt.ArrayLike) -> FloatArray:
        """Map patient mm ``(..., 3)`` to voxel coordinates in (k, r, c), not rounded."""
        points = np.asarray(patient, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(np.linalg.solve(self.affine[:3, :3], points.reshape(-1, 3).T).T.reshape(points.shape))
