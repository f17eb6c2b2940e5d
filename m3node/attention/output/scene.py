"""An image on the square that the model sees, ready to be drawn: every tile of a picture has the same geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from skimage.measure import find_contours

from m3node.attention.images.image import InputImage, Side
from m3node.drawing.cells import cells_on_pixels
from m3node.drawing.heat import overlaid
from m3node.drawing.lettering import FINE, WHITE, Colour, font_of, write

Picture = npt.NDArray[np.uint8]
Area = tuple[float, float, float, float]

PADDING: Colour = (0, 0, 0)
"""What the model is shown around an image that is no square."""

BODY: Colour = (126, 208, 150)
TRUTH: Colour = (110, 190, 255)

EVEN_TIMES = 4.0
"""The colour scale ends at the largest cell, but not below so many times what an even spread gives each: what is flat
must not look hot."""

_EDGE: Colour = (70, 76, 86)
_DIMMED = 0.35
_NOTHING = 24
"""Grey level below cells without attention."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a tile is drawn from.

    Attributes
    ----------
    picture : ndarray of uint8, shape (side, side, 3)
        The image on the model's square, as large as it will be shown. Lines and letters are drawn on `canvas`, which is
        `FINE` times as large.
    inside : tuple of int
        ``(top, left, bottom, right)``: where on the picture the image lies.
    area : tuple of float
        The square in pixel edges of the image, ``(r0, c0, r1, c1)``.
    left : Side or None
        The image's side at which the patient's left lies.
    """

    picture: Picture
    inside: tuple[int, int, int, int]
    area: Area
    left: Side | None

    @classmethod
    def of(cls, image: InputImage, area: Area, width: int) -> Scene:
        """Lay out an image for tiles of ``width`` pixels."""
        inside = _placed(image.shape, area, width)
        top, left, bottom, right = inside
        canvas = Image.new("RGB", (width, width), PADDING)
        canvas.paste(_resized(image.rgb, (right - left, bottom - top)), (left, top))
        return cls(np.asarray(canvas), inside, area, image.patient_left)

    def canvas(self, picture: Picture) -> Image.Image:
        """Enlarge a picture of the whole square to draw on it."""
        side = self.picture.shape[0] * FINE
        return Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)

    def cut(self, canvas: Image.Image) -> Image.Image:
        """Leave the padding of a canvas away."""
        top, left, bottom, right = self._inside_canvas
        return canvas.crop((left, top, right, bottom))

    def heated(self, grid: npt.NDArray[np.floating]) -> Picture:
        """Lay the heat map over the image, which is grey then: the map's colours must be its own."""
        side = self.picture.shape[0]
        values = cells_on_pixels(grid, (0.0, 0.0, float(side), float(side)), (side, side))
        return overlaid(_grey(self.picture), values, peak_of(grid))

    def blocks(self, grid: npt.NDArray[np.floating], peak: float) -> Picture:
        """Draw the cells as they are, each of one colour, over nothing."""
        side, cells = self.picture.shape[0], grid.shape[0]
        colours = overlaid(np.full((*grid.shape, 3), _NOTHING, dtype=np.uint8), grid, peak)
        which = np.minimum(np.arange(side) * cells // side, cells - 1)
        drawn = colours[np.ix_(which, which)]
        edges = np.flatnonzero(np.diff(which)) + 1
        drawn[edges], drawn[:, edges] = 0, 0
        return drawn

    def masked(self, mask: npt.NDArray[np.bool_]) -> Picture:
        """Dim what lies outside a mask of the image's own pixels."""
        kept = self._on_square(mask, 1)[..., None]
        return np.where(kept, self.picture, (self.picture * _DIMMED).astype(np.uint8))

    def outline(self, draw: ImageDraw.ImageDraw, mask: npt.NDArray[np.bool_], colour: Colour, width: float) -> None:
        """Draw the contour of a mask of the image's own pixels."""
        # Padded, so that a mask at the border has a closed outline; + 0.5 - 1: from padded centres to edges.
        for contour in find_contours(np.pad(self._on_square(mask, FINE), 1).astype(np.float32), 0.5):
            points = [(float(column) - 0.5, float(row) - 0.5) for row, column in contour]
            draw.line(points, fill=colour, width=round(width * FINE), joint="curve")

    def frame(self, draw: ImageDraw.ImageDraw) -> None:
        """Show where the image ends and the padding begins."""
        top, left, bottom, right = self._inside_canvas
        side = self.picture.shape[0] * FINE
        for at in {left, right} - {0, side}:
            draw.line([(at, top), (at, bottom)], fill=_EDGE, width=FINE)
        for at in {top, bottom} - {0, side}:
            draw.line([(left, at), (right, at)], fill=_EDGE, width=FINE)

    def letter(self, draw: ImageDraw.ImageDraw) -> None:
        """Write an L at the patient's left, where it is known."""
        if self.left is None:
            return
        top, left, bottom, right = self._inside_canvas
        edge = 8 * FINE
        places = {
            "left": (left + edge, (top + bottom) / 2, "lm"),
            "right": (right - edge, (top + bottom) / 2, "rm"),
            "top": ((left + right) / 2, top + edge, "mt"),
            "bottom": ((left + right) / 2, bottom - edge, "mb"),
        }
        x, y, anchor = places[self.left]
        write(draw, (x, y), "L", font_of(17), anchor=anchor, colour=WHITE)

    @property
    def _inside_canvas(self) -> tuple[int, int, int, int]:
        top, left, bottom, right = self.inside
        return top * FINE, left * FINE, bottom * FINE, right * FINE

    def _on_square(self, mask: npt.NDArray[np.bool_], times: int) -> npt.NDArray[np.bool_]:
        top, left, bottom, right = (edge * times for edge in self.inside)
        side = self.picture.shape[0] * times
        square = np.zeros((side, side), dtype=np.bool_)
        scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            (right - left, bottom - top), Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        square[top:bottom, left:right] = np.asarray(scaled) >= 128
        return square


def peak_of(grid: npt.NDArray[np.floating]) -> float:
    """Return the value at which the colour scale ends."""
    return max(float(grid.max()), EVEN_TIMES / grid.size)


def _placed(shape: tuple[int, int], area: Area, side: int) -> tuple[int, int, int, int]:
    """Where an image lies on a square of ``side`` pixels that shows ``area``; at least a pixel of it."""
    r0, c0, r1, c1 = area
    down, across = side / (r1 - r0), side / (c1 - c0)
    top, bottom = max(0, round(-r0 * down)), min(side, round((shape[0] - r0) * down))
    left, right = max(0, round(-c0 * across)), min(side, round((shape[1] - c0) * across))
    return min(top, side - 1), min(left, side - 1), max(bottom, top + 1), max(right, left + 1)


def _resized(rgb: Picture, size: tuple[int, int]) -> Image.Image:
    # In two steps where it becomes much smaller, which costs a tenth for a detector's full resolution.
    return Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _grey(picture: Picture) -> Picture:
    if np.array_equal(picture[..., 0], picture[..., 1]) and np.array_equal(picture[..., 1], picture[..., 2]):
        return picture
    return np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2)
