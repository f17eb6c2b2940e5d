"""How an axial slice is shown to a radiologist: patient's right on the left, front up, square millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from m3node.imaging.geometry import PatientGeometry

Scalar = TypeVar("Scalar", bound=np.generic)

_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Where the positive and the negative patient axes point (LPS)."""


@dataclass(frozen=True, slots=True)
class Display:
    """Turns a stored slice into the radiological view, whatever way it was stored.

    A slice is turned by quarter turns and mirrored, never resampled by an angle: a table rotated by 12° stays so.

    Attributes
    ----------
    transpose, flip_rows, flip_columns : bool
        What is done, in this order.
    shape : tuple of int
        Rows and columns as stored.
    spacing : tuple of float
        mm between shown rows and between shown columns.
    letters : tuple of str
        Sides of the patient at the left, right, top and bottom edge.
    """

    transpose: bool
    flip_rows: bool
    flip_columns: bool
    shape: tuple[int, int]
    spacing: tuple[float, float]
    letters: tuple[str, str, str, str]

    @classmethod
    def of(cls, geometry: PatientGeometry) -> Display:
        """Choose the turn for a volume."""
        down, right = geometry.affine[:3, 1], geometry.affine[:3, 2]
        _, down_mm, right_mm = geometry.spacing
        transpose = bool(abs(down[0]) / down_mm > abs(right[0]) / right_mm)
        if transpose:
            down, right, down_mm, right_mm = right, down, right_mm, down_mm
        flip_columns, flip_rows = bool(right[0] < 0), bool(down[1] < 0)
        right = -right if flip_columns else right
        down = -down if flip_rows else down
        return cls(
            transpose=transpose,
            flip_rows=flip_rows,
            flip_columns=flip_columns,
            shape=geometry.shape[1:],
            spacing=(down_mm, right_mm),
            letters=(_letter(-right), _letter(right), _letter(-down), _letter(down)),
        )

    @property
    def shown_shape(self) -> tuple[int, int]:
        """Rows and columns as shown."""
        rows, columns = self.shape
        return (columns, rows) if self.transpose else (rows, columns)

    def turn(self, plane: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Turn a stored slice or mask."""
        turned = plane.T if self.transpose else plane
        turned = turned[::-1] if self.flip_rows else turned
        return turned[:, ::-1] if self.flip_columns else turned

    def turn_points(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Turn points given as (row, column) on stored pixel edges: (0, 0) is the first pixel's outer corner."""
        moved = np.array(points, dtype=np.float64).reshape(-1, 2)
        if self.transpose:
            moved = moved[:, ::-1].copy()
        rows, columns = self.shown_shape
        if self.flip_rows:
            moved[:, 0] = rows - moved[:, 0]
        if self.flip_columns:
            moved[:, 1] = columns - moved[:, 1]
        return moved


def windowed(plane: npt.NDArray[np.int16], size: tuple[int, int], window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Resample HU to a size (width, height) and map a window (centre, width) to grey.

    Resampled in HU, before the window clips: bone and air keep smooth edges.
    """
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    scaled = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    centre, width = window
    return np.asarray(np.clip((scaled - (centre - width / 2)) / width * 255.0, 0, 255).round(), dtype=np.uint8)


def body_extent(plane: npt.NDArray[np.int16], margin: int) -> tuple[int, int, int, int]:
    """Rows and columns (r0, r1, c0, c1; half-open) that hold what is denser than fat, and a margin around it."""
    dense = plane > -250
    # A line must hold a hundredth of tissue, else one noisy pixel in the air decides.
    rows = np.flatnonzero(dense.mean(axis=1) > 0.01)
    columns = np.flatnonzero(dense.mean(axis=0) > 0.01)
    if rows.size == 0 or columns.size == 0:
        return 0, plane.shape[0], 0, plane.shape[1]
    return (
        max(int(rows[0]) - margin, 0),
        min(int(rows[-1]) + 1 + margin, plane.shape[0]),
        max(int(columns[0]) - margin, 0),
        min(int(columns[-1]) + 1 + margin, plane.shape[1]),
    )


def _letter(direction: npt.NDArray[np.float64]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return _LETTERS[axis][0 if direction[axis] > 0 else 1]
