"""A slice on its way to a picture: turned, cropped and windowed, with outlines, boxes, sides and a scale bar on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from skimage.measure import find_contours

from m3node.detectors.protocols import Box2D
from m3node.drawing.heat import overlaid
from m3node.drawing.lettering import FINE, GREY, WHITE, Colour, font_of, write
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.volume import HUArray
from m3node.results.display import Display, body_extent, windowed
from m3node.results.labels import Rect
from m3node.results.presentation import SOFT_TISSUE_WINDOW

LIVER = (126, 208, 150)


@dataclass(frozen=True, slots=True)
class Crop:
    """What all slices of a picture show, and how large: ``extent`` is rows and columns of the turned slice."""

    display: Display
    extent: tuple[int, int, int, int]
    width: int

    @property
    def per_mm(self) -> float:
        """Canvas pixels per millimetre."""
        return self.width * FINE / ((self.extent[3] - self.extent[2]) * self.display.spacing[1])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the canvas."""
        rows = self.extent[1] - self.extent[0]
        return self.width * FINE, max(1, round(rows * self.display.spacing[0] * self.per_mm))

    def points(self, stored: npt.ArrayLike) -> list[tuple[float, float]]:
        """Canvas (x, y) of stored (row, column) edge points."""
        row_mm, column_mm = self.display.spacing
        return [
            (float((c - self.extent[2]) * column_mm * self.per_mm), float((r - self.extent[0]) * row_mm * self.per_mm))
            for r, c in self.display.turn_points(stored)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A slice and the canvas that it is drawn on, `FINE` times as large as the picture."""

    k: int
    canvas: Image.Image
    crop: Crop

    @classmethod
    def of(cls, hu: HUArray, k: int, crop: Crop) -> Tile:
        """Lay slice ``k``, stored as ``hu`` of shape (rows, columns), in the soft-tissue window on a canvas."""
        r0, r1, c0, c1 = crop.extent
        plane = crop.display.turn(hu)[r0:r1, c0:c1]
        return cls(k, Image.fromarray(windowed(plane, crop.size, SOFT_TISSUE_WINDOW)).convert("RGB"), crop)

    def heated(self, values: npt.NDArray[np.float32], peak: float) -> Tile:
        """The same with a heat map over it; ``values`` as stored, shape (rows, columns)."""
        r0, r1, c0, c1 = self.crop.extent
        plane = np.ascontiguousarray(self.crop.display.turn(values)[r0:r1, c0:c1], dtype=np.float32)
        scaled = np.asarray(Image.fromarray(plane).resize(self.crop.size, Image.Resampling.BILINEAR))
        return Tile(self.k, Image.fromarray(overlaid(np.asarray(self.canvas), scaled, peak)), self.crop)


def common_extent(planes: Sequence[HUArray], spacing: tuple[float, float]) -> tuple[int, int, int, int]:
    """Rows and columns that show the trunk on all of the turned slices."""
    margin = max(1, round(8.0 / min(spacing)))
    extents = np.array([body_extent(plane, margin) for plane in planes])
    r0, c0 = extents[:, 0].min(), extents[:, 2].min()
    r1, c1 = extents[:, 1].max(), extents[:, 3].max()
    return int(r0), int(r1), int(c0), int(c1)


def draw_outline(
    draw: ImageDraw.ImageDraw, tile: Tile, mask: npt.NDArray[np.bool_], colour: Colour, width: float
) -> None:
    """Draw the contour of a mask as stored, shape (rows, columns)."""
    if not mask.any():
        return
    # Padded, so that a mask at the image's border has a closed outline; + 0.5 - 1: from padded centres to edges.
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        draw.line(tile.crop.points(contour - 0.5), fill=colour, width=round(width * FINE), joint="curve")


def frame_of(tile: Tile, box: Box2D) -> Rect:
    """A box on the canvas, a little wider than the lesion, which it must not hide."""
    (xa, ya), (xb, yb) = tile.crop.points([(box.r0, box.c0), (box.r1, box.c1)])
    away = 3 * FINE
    return Rect(min(xa, xb) - away, min(ya, yb) - away, max(xa, xb) + away, max(ya, yb) + away)


def draw_marks(draw: ImageDraw.ImageDraw, tile: Tile, geometry: PatientGeometry) -> None:
    """Write the patient's sides, slice number, position and window at the edges, and draw a scale bar."""
    per_mm = tile.crop.per_mm
    width, height = tile.canvas.size
    edge = 8 * FINE
    left, right, top, bottom = tile.crop.display.letters
    big, small = font_of(18), font_of(13)
    write(draw, (edge, height / 2), left, big, anchor="lm")
    write(draw, (width - edge, height / 2), right, big, anchor="rm")
    write(draw, (width / 2, edge), top, big, anchor="mt")
    write(draw, (width / 2, height - edge), bottom, big, anchor="mb")
    centre, window = SOFT_TISSUE_WINDOW
    z = float(geometry.positions[tile.k][2])
    write(draw, (edge, edge), f"Slice {tile.k + 1} of {geometry.shape[0]}", small, anchor="lt")
    write(draw, (edge, edge + 18 * FINE), f"z {z:+.1f} mm", small, anchor="lt")
    write(draw, (width - edge, edge), f"C {centre:.0f}  W {window:.0f}", small, anchor="rt", colour=GREY)
    bar_mm = next((mm for mm in (100, 50, 20, 10, 5) if mm * per_mm <= width / 4), 1)
    x1, y = width - edge, height - edge
    x0 = x1 - bar_mm * per_mm
    draw.line([(x0, y), (x1, y)], fill=WHITE, width=2 * FINE)
    for x in (x0, x1):
        draw.line([(x, y - 4 * FINE), (x, y)], fill=WHITE, width=2 * FINE)
    write(draw, ((x0 + x1) / 2, y - 6 * FINE), f"{bar_mm} mm", small, anchor="mb")
