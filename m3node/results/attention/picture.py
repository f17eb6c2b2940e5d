"""A frame of the capture: a key slice twice, plain and under its heat map, with the words that it must not go without.

Plain and mapped stand side by side, because a map hides what it lies on. Nothing of the patient is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from m3node.drawing.cells import cells_on_pixels
from m3node.drawing.heat import colour_bar
from m3node.drawing.lettering import AMBER, BACKGROUND, FINE, GREY, WHITE, font_of, shortened, write
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.volume import HUArray
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE
from m3node.results.attention.choice import largest_slice
from m3node.results.display import Display
from m3node.results.findings import Findings, KeyAttention, Outcome
from m3node.results.tile import LIVER, Crop, Tile, common_extent, draw_marks, draw_outline, frame_of

TILE_WIDTH = 480
GAP = 12
HEADER = 92
FOOTER = 80
BAR_WIDTH = 18
BAR_ROOM = 96


@dataclass(frozen=True, slots=True, eq=False)
class ShownSlice:
    """A key slice and its attention.

    Attributes
    ----------
    attention : KeyAttention
        What is shown.
    hu : ndarray of int16, shape (rows, columns)
        The slice as stored.
    """

    attention: KeyAttention
    hu: HUArray


def draw_attention(
    shown: Sequence[ShownSlice], findings: Findings, geometry: PatientGeometry
) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw one picture for each shown slice; all have the same size and show the same part of the body.

    Parameters
    ----------
    shown : sequence of ShownSlice
        At least one.
    findings : Findings
        Liver, lesions and detector.
    geometry : PatientGeometry
        Of the volume.

    Yields
    ------
    ndarray of uint8, shape (rows, columns, 3)
    """
    display = Display.of(geometry)
    extent = common_extent([display.turn(item.hu) for item in shown], display.spacing)
    crop = Crop(display, extent, TILE_WIDTH)
    return (_picture(item, findings, geometry, crop) for item in shown)


def title(item: KeyAttention, findings: Findings) -> str:
    """What a picture is of: the lesion's number, or why this slice where there is no lesion."""
    if item.lesion is not None:
        return f"Lesion {item.lesion}, its key slice"
    region = findings.region
    largest = None if region is None else largest_slice(region)
    among = "" if item.slice_index == largest else " of those read"
    # An incomplete search is never "no lesion".
    said = "No lesion found" if findings.outcome is Outcome.NO_LESION else "Search incomplete"
    return f"{said}: slice with the largest liver{among}"


def _picture(item: ShownSlice, findings: Findings, geometry: PatientGeometry, crop: Crop) -> npt.NDArray[np.uint8]:
    shown = item.attention
    area = shown.grid.area
    values = cells_on_pixels(shown.grid.values, (area.r0, area.c0, area.r1, area.c1), item.hu.shape)
    peak = float(shown.grid.values.max())
    plain = Tile.of(item.hu, shown.slice_index, crop)
    mapped = plain.heated(values, peak)
    for tile in (plain, mapped):
        _draw_findings(tile, shown, findings, geometry)

    tile_width, tile_height = (round(side / FINE) for side in plain.canvas.size)
    width, height = 2 * tile_width + 3 * GAP + BAR_ROOM, HEADER + tile_height + FOOTER
    sheet = Image.new("RGB", (width * FINE, height * FINE), BACKGROUND)
    for index, tile in enumerate((plain, mapped)):
        sheet.paste(tile.canvas, ((GAP + index * (tile_width + GAP)) * FINE, HEADER * FINE))
    draw = ImageDraw.Draw(sheet)
    _draw_bar(sheet, draw, peak, (2 * tile_width + 3 * GAP, HEADER, tile_height))
    _draw_words(draw, shown, findings, (width, height))
    return np.asarray(sheet.resize((width, height), Image.Resampling.LANCZOS), dtype=np.uint8)


def _draw_findings(tile: Tile, shown: KeyAttention, findings: Findings, geometry: PatientGeometry) -> None:
    draw = ImageDraw.Draw(tile.canvas)
    if findings.region is not None:
        draw_outline(draw, tile, findings.region.envelope.on_slice(tile.k), LIVER, 1.5)
    for lesion in findings.lesions:
        if lesion.number == shown.lesion:
            frame = frame_of(tile, lesion.key_box.box)
            # White with a dark rim: a lesion's own colour may be one of the map's.
            draw.rectangle((frame.x0 - FINE, frame.y0 - FINE, frame.x1 + FINE, frame.y1 + FINE), outline=BACKGROUND)
            draw.rectangle((frame.x0, frame.y0, frame.x1, frame.y1), outline=WHITE, width=2 * FINE)
            write(draw, (frame.x0, frame.y0 - 3 * FINE), str(lesion.number), font_of(15), anchor="lb")
    draw_marks(draw, tile, geometry)


def _draw_bar(sheet: Image.Image, draw: ImageDraw.ImageDraw, peak: float, at: tuple[int, int, int]) -> None:
    """The bar and its numbers; ``at`` is left, top and height in picture pixels."""
    left, top, room = at
    head = 40
    height = room - head - 10
    bar = Image.fromarray(colour_bar(height * FINE, BAR_WIDTH * FINE))
    sheet.paste(bar, (left * FINE, (top + head) * FINE))
    font = font_of(13)
    for line, words in enumerate(("share of attention", "per image token")):
        # As wide as the room beside the tiles allows.
        write(draw, (left * FINE, (top + 4 + 16 * line) * FINE), words, font_of(11), anchor="lt", colour=GREY)
    for share in (1.0, 0.75, 0.5, 0.25, 0.0):
        y = (top + head + (1.0 - share) * height) * FINE
        x = (left + BAR_WIDTH) * FINE
        draw.line([(x, y), (x + 4 * FINE, y)], fill=WHITE, width=FINE)
        write(draw, (x + 8 * FINE, y), _percent(share * peak, peak), font, anchor="lm")


def _draw_words(draw: ImageDraw.ImageDraw, shown: KeyAttention, findings: Findings, size: tuple[int, int]) -> None:
    width, height = size
    detector = findings.detector
    total = float(shown.grid.values.sum())
    what = "one box's coordinates" if shown.box is not None else "the whole answer"
    reach = f"all {shown.grid.values.size} image tokens together {_percent(total, total)}"
    lines = (
        (f"Model attention. {title(shown, findings)}.", font_of(22), WHITE),
        (f"Model: {detector.name} {detector.version}. {detector.description}", font_of(14), GREY),
        (
            f"Attention of the language model to the image while it wrote {what}; {reach}; "
            f"view padded by {shown.padding * 100:.0f} %.",
            font_of(14),
            GREY,
        ),
    )
    for (words, font, colour), y in zip(lines, (22, 50, 72), strict=True):
        fitting = shortened(draw, words, font, (width - 2 * GAP) * FINE)
        write(draw, (GAP * FINE, y * FINE), fitting, font, anchor="lm", colour=colour)
    drawn = "Left plain, right with the map. Green: the liver's envelope."
    if shown.lesion is not None:
        drawn += " White: the lesion's box."
    write(draw, (GAP * FINE, (height - FOOTER + 14) * FINE), drawn, font_of(13), anchor="lm", colour=GREY)
    for words, y in ((ATTENTION_NOTICE, height - 38), (NOT_FOR_CLINICAL_USE, height - 16)):
        write(draw, (width * FINE / 2, y * FINE), words, font_of(16), anchor="mm", colour=AMBER)


def _percent(value: float, scale: float) -> str:
    """As many digits as tell a quarter of ``scale`` from nothing."""
    digits = 0
    while digits < 5 and scale * 100.0 * 10**digits < 20.0:
        digits += 1
    return f"{value * 100.0:.{digits}f} %"
