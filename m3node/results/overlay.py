"""``overlay.png``: the key slices as a radiologist would look at them, with liver outline, lesion boxes and sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from m3node.detectors.protocols import Box2D
from m3node.drawing.lettering import AMBER, BACKGROUND, FINE, GREY, WHITE, font_of, shortened, write
from m3node.imaging.volume import CTVolume
from m3node.m3.lesion import Lesion
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.display import Display
from m3node.results.findings import Findings, Outcome
from m3node.results.labels import place_labels
from m3node.results.placing import place
from m3node.results.segmentation import lesion_colour
from m3node.results.statements import sentences
from m3node.results.tile import LIVER, Crop, Tile, common_extent, draw_marks, draw_outline, frame_of

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
    extent = common_extent([display.turn(volume.hu[k]) for k in slices], display.spacing)
    crop = Crop(display, extent, TILE_WIDTH if len(slices) > 1 else SINGLE_TILE_WIDTH)
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


def _tile(volume: CTVolume, findings: Findings, crop: Crop, k: int) -> Tile:
    tile = Tile.of(volume.hu[k], k, crop)
    draw = ImageDraw.Draw(tile.canvas)
    if findings.region is not None:
        draw_outline(draw, tile, findings.region.parenchyma.on_slice(k), LIVER, 1.5)
    _lesions(draw, tile, findings.lesions)
    draw_marks(draw, tile, volume.geometry)
    return tile


def _lesions(draw: ImageDraw.ImageDraw, tile: Tile, lesions: tuple[Lesion, ...]) -> None:
    """Outlines first, then boxes, then labels: nothing that says a number is covered."""
    shown = [(lesion, box) for lesion in lesions if (box := _box_on(lesion, tile.k)) is not None]
    for lesion, _ in shown:
        draw_outline(draw, tile, lesion.mask.on_slice(tile.k), lesion_colour(lesion.number), 1.0)
    frames = [frame_of(tile, box) for _, box in shown]
    texts = [f"{lesion.number}   {lesion.measurements.longest.length_mm:.0f} mm" for lesion, _ in shown]
    font, rim = font_of(15), 4 * FINE
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


def _box_on(lesion: Lesion, k: int) -> Box2D | None:
    if k == lesion.key_slice:
        return lesion.key_box.box
    return next((box.box for box in lesion.boxes if box.slice_index == k), None)


def _sheet(tiles: list[Tile], findings: Findings, volume: CTVolume) -> Image.Image:
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
    write(
        draw,
        (width * FINE / 2, (height - FOOTER / 2) * FINE),
        NOT_FOR_CLINICAL_USE,
        font_of(17),
        anchor="mm",
        colour=AMBER,
    )
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def _header(draw: ImageDraw.ImageDraw, findings: Findings, width: int) -> None:
    colour = WHITE if findings.outcome in {Outcome.LESIONS, Outcome.NO_LESION} else AMBER
    said = sentences(findings)
    write(draw, (2 * GAP * FINE, 26 * FINE), said[0], font_of(24), anchor="lm", colour=colour)
    detail = said[1] if findings.outcome is Outcome.INCOMPLETE else said[-1]
    font = font_of(14)
    detail = shortened(draw, detail, font, (width - 4 * GAP) * FINE)
    write(draw, (2 * GAP * FINE, 58 * FINE), detail, font, anchor="lm", colour=GREY)


def _table(draw: ImageDraw.ImageDraw, findings: Findings, volume: CTVolume, top: int) -> None:
    if not findings.lesions:
        return
    columns = (24, 80, 240, 350, 500, 620)
    heads = ("", "axial diameters", "volume", "HU mean (SD)", "position z", "seen in")
    y = top + ROW // 2
    for x, head in zip(columns, heads, strict=True):
        write(draw, (x * FINE, y * FINE), head, font_of(13), anchor="lm", colour=GREY)
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
            write(draw, (x * FINE, y * FINE), cell, font_of(15), anchor="lm", colour=colour)
    hidden = len(findings.lesions) - MAX_ROWS
    if hidden > 0:
        write(draw, (columns[1] * FINE, (y + ROW) * FINE), f"and {hidden} more", font_of(15), anchor="lm", colour=GREY)
