"""``overlay.png``: the key slices as a radiologist would look at them, with liver outline, lesion boxes and sizes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from m3node.detectors.protocols import Box2D
from m3node.imaging.volume import CTVolume
from m3node.m3.lesion import Lesion
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.display import Display, body_extent, windowed
from m3node.results.findings import Findings, Outcome
from m3node.results.labels import Rect, place_labels
from m3node.results.placing import place
from m3node.results.presentation import SOFT_TISSUE_WINDOW
from m3node.results.segmentation import lesion_colour
from m3node.results.statements import sentences

MAX_SLICES = 6
MAX_ROWS = 12
"""Lesions listed below the slices; more are counted."""

NEXT_MM = 5.0
"""Key slices nearer than this look the same."""

TILE_WIDTH = 560
SINGLE_TILE_WIDTH = 880
GAP = 12
HEADER = 84
FOOTER = 40
ROW = 26

BACKGROUND = (16, 18, 22)
WHITE = (236, 238, 240)
GREY = (150, 156, 164)
LIVER = (126, 208, 150)
AMBER = (255, 190, 70)

# Lines and letters are drawn on a canvas twice as large and shrunk with it, which smooths them.
FINE = 2


@dataclass(frozen=True, slots=True)
class _Crop:
    """What all slices of a sheet show, and how large: ``extent`` is rows and columns of the turned slice."""

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
class _Tile:
    """One slice on its way to the sheet."""

    k: int
    canvas: Image.Image
    crop: _Crop


def draw_overlay(volume: CTVolume, findings: Findings, path: Path) -> bool:
    """Draw the picture of a run.

    Up to six key slices in a soft-tissue window, head to feet, patient's right on the left however the series is
    stored; without a lesion the slice where the liver is largest, without a liver the middle one. Every picture
    carries the notice and holds no patient's name.

    Parameters
    ----------
    volume : CTVolume
        What was looked at.
    findings : Findings
        What was found in it.
    path : Path
        The PNG.

    Returns
    -------
    bool
        False when a picture was there already: it stays.
    """
    display = Display.of(volume.geometry)
    slices = shown_slices(volume, findings)
    # One crop for all, so that the slices of a sheet can be compared.
    extent = _common_extent([display.turn(volume.hu[k]) for k in slices], display.spacing)
    crop = _Crop(display, extent, TILE_WIDTH if len(slices) > 1 else SINGLE_TILE_WIDTH)
    tiles = [_tile(volume, findings, crop, k) for k in slices]
    stream = io.BytesIO()
    _sheet(tiles, findings, volume).save(stream, format="PNG", optimize=True)
    return place(path, stream.getvalue())


def shown_slices(volume: CTVolume, findings: Findings) -> list[int]:
    """The slices that the picture shows, head first: key slices, best lesions first, while there is room.

    A key slice next to one that is shown already, and that shows its lesion too, is left out.
    """
    chosen: list[int] = []
    reach = max(1, round(NEXT_MM / volume.geometry.spacing[0]))
    for lesion in sorted(findings.lesions, key=lambda lesion: lesion.number):
        near = (k for k in chosen if abs(k - lesion.key_slice) <= reach)
        if len(chosen) < MAX_SLICES and not any(_box_on(lesion, k) is not None for k in near):
            chosen.append(lesion.key_slice)
    region = findings.region
    if not chosen and region is not None and region.parenchyma.count:
        chosen = [region.parenchyma.start[0] + int(np.argmax(region.parenchyma.data.sum(axis=(1, 2))))]
    if not chosen:
        chosen = [volume.geometry.shape[0] // 2]
    return sorted(chosen, key=lambda k: -float(volume.geometry.positions[k][2]))


def _common_extent(planes: list[npt.NDArray[np.int16]], spacing: tuple[float, float]) -> tuple[int, int, int, int]:
    margin = max(1, round(8.0 / min(spacing)))
    extents = np.array([body_extent(plane, margin) for plane in planes])
    r0, c0 = extents[:, 0].min(), extents[:, 2].min()
    r1, c1 = extents[:, 1].max(), extents[:, 3].max()
    return int(r0), int(r1), int(c0), int(c1)


def _tile(volume: CTVolume, findings: Findings, crop: _Crop, k: int) -> _Tile:
    r0, r1, c0, c1 = crop.extent
    plane = crop.display.turn(volume.hu[k])[r0:r1, c0:c1]
    canvas = Image.fromarray(windowed(plane, crop.size, SOFT_TISSUE_WINDOW)).convert("RGB")
    tile = _Tile(k=k, canvas=canvas, crop=crop)
    draw = ImageDraw.Draw(canvas)
    if findings.region is not None:
        _outline(draw, tile, findings.region.parenchyma.on_slice(k), LIVER, 1.5)
    _lesions(draw, tile, findings.lesions)
    _marks(draw, tile, volume)
    return tile


def _outline(
    draw: ImageDraw.ImageDraw,
    tile: _Tile,
    mask: npt.NDArray[np.bool_],
    colour: tuple[int, int, int],
    width: float,
) -> None:
    if not mask.any():
        return
    # Padded, so that a mask at the image's border has a closed outline; + 0.5 - 1: from padded centres to edges.
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        draw.line(tile.crop.points(contour - 0.5), fill=colour, width=round(width * FINE), joint="curve")


def _lesions(draw: ImageDraw.ImageDraw, tile: _Tile, lesions: tuple[Lesion, ...]) -> None:
    """Outlines first, then boxes, then labels: nothing that says a number is covered."""
    shown = [(lesion, box) for lesion in lesions if (box := _box_on(lesion, tile.k)) is not None]
    for lesion, _ in shown:
        _outline(draw, tile, lesion.mask.on_slice(tile.k), lesion_colour(lesion.number), 1.0)
    frames = [_frame(tile, box) for _, box in shown]
    texts = [f"{lesion.number}   {lesion.measurements.longest.length_mm:.0f} mm" for lesion, _ in shown]
    font, rim = _font(15), 4 * FINE
    extents = [draw.textbbox((0, 0), text, font=font) for text in texts]
    sizes = [(right - left + 2 * rim, bottom - top + 2 * rim) for left, top, right, bottom in extents]
    labels = place_labels(frames, sizes, (tile.canvas.width, tile.canvas.height))
    for (lesion, _), frame, label in zip(shown, frames, labels, strict=True):
        colour = lesion_colour(lesion.number)
        draw.rectangle((frame.x0, frame.y0, frame.x1, frame.y1), outline=colour, width=round(1.5 * FINE))
        near = (np.clip(label.x0 + rim, frame.x0, frame.x1), np.clip((label.y0 + label.y1) / 2, frame.y0, frame.y1))
        draw.line([near, (label.x0 + rim, (label.y0 + label.y1) / 2)], fill=colour, width=FINE)
    for (lesion, _), label, text, (left, top, _, _) in zip(shown, labels, texts, extents, strict=True):
        draw.rectangle((label.x0, label.y0, label.x1, label.y1), fill=BACKGROUND)
        at = (label.x0 + rim - left, label.y0 + rim - top)
        draw.text(at, text, font=font, fill=lesion_colour(lesion.number))


def _frame(tile: _Tile, box: Box2D) -> Rect:
    """A box on the canvas, a little wider than the lesion, which it must not hide."""
    (xa, ya), (xb, yb) = tile.crop.points([(box.r0, box.c0), (box.r1, box.c1)])
    away = 3 * FINE
    return Rect(min(xa, xb) - away, min(ya, yb) - away, max(xa, xb) + away, max(ya, yb) + away)


def _box_on(lesion: Lesion, k: int) -> Box2D | None:
    if k == lesion.key_slice:
        return lesion.key_box.box
    return next((box.box for box in lesion.boxes if box.slice_index == k), None)


def _marks(draw: ImageDraw.ImageDraw, tile: _Tile, volume: CTVolume) -> None:
    per_mm = tile.crop.per_mm
    width, height = tile.canvas.size
    edge = 8 * FINE
    left, right, top, bottom = tile.crop.display.letters
    big, small = _font(18), _font(13)
    _text(draw, (edge, height / 2), left, big, anchor="lm")
    _text(draw, (width - edge, height / 2), right, big, anchor="rm")
    _text(draw, (width / 2, edge), top, big, anchor="mt")
    _text(draw, (width / 2, height - edge), bottom, big, anchor="mb")
    centre, window = SOFT_TISSUE_WINDOW
    z = float(volume.geometry.positions[tile.k][2])
    _text(draw, (edge, edge), f"Slice {tile.k + 1} of {volume.geometry.shape[0]}", small, anchor="lt")
    _text(draw, (edge, edge + 18 * FINE), f"z {z:+.1f} mm", small, anchor="lt")
    _text(draw, (width - edge, edge), f"C {centre:.0f}  W {window:.0f}", small, anchor="rt", colour=GREY)
    bar_mm = next((mm for mm in (100, 50, 20, 10, 5) if mm * per_mm <= width / 4), 1)
    x1, y = width - edge, height - edge
    x0 = x1 - bar_mm * per_mm
    draw.line([(x0, y), (x1, y)], fill=WHITE, width=2 * FINE)
    for x in (x0, x1):
        draw.line([(x, y - 4 * FINE), (x, y)], fill=WHITE, width=2 * FINE)
    _text(draw, ((x0 + x1) / 2, y - 6 * FINE), f"{bar_mm} mm", small, anchor="mb")


def _sheet(tiles: list[_Tile], findings: Findings, volume: CTVolume) -> Image.Image:
    across = 1 if len(tiles) == 1 else 2 if len(tiles) in (2, 4) else 3
    down = -(-len(tiles) // across)
    tile_width, tile_height = (round(side / FINE) for side in tiles[0].canvas.size)
    listed = findings.lesions[:MAX_ROWS]
    table = (len(listed) + 2 if len(findings.lesions) > MAX_ROWS else len(listed) + 1) * ROW + GAP if listed else 0
    width = max(across * tile_width + (across + 1) * GAP, 2 * GAP + 760)
    height = HEADER + down * (tile_height + GAP) + table + FOOTER
    sheet = Image.new("RGB", (width * FINE, height * FINE), BACKGROUND)
    indent = (width - across * tile_width - (across - 1) * GAP) // 2
    for index, tile in enumerate(tiles):
        x = indent + (index % across) * (tile_width + GAP)
        y = HEADER + (index // across) * (tile_height + GAP)
        sheet.paste(tile.canvas, (x * FINE, y * FINE))
    draw = ImageDraw.Draw(sheet)
    _header(draw, findings, width)
    _table(draw, findings, volume, HEADER + down * (tile_height + GAP))
    _text(
        draw,
        (width * FINE / 2, (height - FOOTER / 2) * FINE),
        NOT_FOR_CLINICAL_USE,
        _font(17),
        anchor="mm",
        colour=AMBER,
    )
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def _header(draw: ImageDraw.ImageDraw, findings: Findings, width: int) -> None:
    colour = WHITE if findings.outcome in {Outcome.LESIONS, Outcome.NO_LESION} else AMBER
    said = sentences(findings)
    _text(draw, (2 * GAP * FINE, 26 * FINE), said[0], _font(24), anchor="lm", colour=colour)
    detail = said[1] if findings.outcome is Outcome.INCOMPLETE else said[-1]
    font = _font(14)
    room = (width - 4 * GAP) * FINE
    while draw.textlength(detail, font=font) > room:
        detail = detail.rsplit(" ", 1)[0].rstrip(".") + "..." if " " in detail else detail[:40]
    _text(draw, (2 * GAP * FINE, 58 * FINE), detail, font, anchor="lm", colour=GREY)


def _table(draw: ImageDraw.ImageDraw, findings: Findings, volume: CTVolume, top: int) -> None:
    if not findings.lesions:
        return
    columns = (24, 80, 240, 350, 500, 620)
    heads = ("", "axial diameters", "volume", "HU mean (SD)", "position z", "seen in")
    y = top + ROW // 2
    for x, head in zip(columns, heads, strict=True):
        _text(draw, (x * FINE, y * FINE), head, _font(13), anchor="lm", colour=GREY)
    for lesion in findings.lesions[:MAX_ROWS]:
        y += ROW
        measured = lesion.measurements
        z = float(volume.geometry.positions[lesion.key_slice][2])
        cells = (
            str(lesion.number),
            f"{measured.longest.length_mm:.0f} x {measured.perpendicular.length_mm:.0f} mm",
            f"{measured.volume_ml:.1f} ml",
            f"{measured.hu_mean:.0f} ({measured.hu_sd:.0f})",
            f"{z:+.1f} mm",
            f"{lesion.votes} of {lesion.views} views",
        )
        for x, cell in zip(columns, cells, strict=True):
            colour = lesion_colour(lesion.number) if x == columns[0] else WHITE
            _text(draw, (x * FINE, y * FINE), cell, _font(15), anchor="lm", colour=colour)
    hidden = len(findings.lesions) - MAX_ROWS
    if hidden > 0:
        _text(draw, (columns[1] * FINE, (y + ROW) * FINE), f"and {hidden} more", _font(15), anchor="lm", colour=GREY)


def _text(
    draw: ImageDraw.ImageDraw,
    place_at: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    anchor: str,
    colour: tuple[int, int, int] = WHITE,
) -> None:
    """Write with a dark rim, readable on bone and on air."""
    draw.text(place_at, text, font=font, fill=colour, anchor=anchor, stroke_width=FINE, stroke_fill=BACKGROUND)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * FINE)
