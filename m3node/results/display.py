"""How an axial slice is shown to a radiologist: patient's right on the left, front up, square millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_opening, find_objects, label

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
    """Rows and columns (r0, r1, c0, c1; half-open) of the trunk and a margin around it.

    The trunk is the largest thing denser than fat once thin bridges are cut: without table, and without arms beside it.
    """
    dense = binary_opening(plane > -250, iterations=2)
    parts, count = label(dense)
    if count == 0:
        return 0, plane.shape[0], 0, plane.shape[1]
    sizes = np.bincount(parts.ravel())
    rows, columns = find_objects(parts, max_label=count)[int(np.argmax(sizes[1:]))]
    return (
        max(rows.start - margin, 0),
        min(rows.stop + margin, plane.shape[0]),
        max(columns.start - margin, 0),
        min(columns.stop + margin, plane.shape[1]),
    )


def _letter(direction: npt.NDArray[np.float64]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return _LETTERS[axis][0 if direction[axis] > 0 else 1]
