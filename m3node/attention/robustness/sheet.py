"""``robustness/{key}.png``: the image and its changed ones side by side, each under its own heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from m3node.attention.images.image import InputImage
from m3node.attention.output.lines import wrapped
from m3node.attention.output.overlay import png
from m3node.attention.output.scene import Picture, Scene
from m3node.attention.reading.looked import Looked
from m3node.attention.robustness.record import RobustnessRecord
from m3node.drawing.lettering import AMBER, BACKGROUND, FINE, GREY, WHITE, Colour, font_of, write
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

WIDTH = 190
ACROSS = (4, 5, 6)
"""Tiles in a row: the number that leaves the fewest places empty, of equal ones the largest."""

GAP = 12
LINE = 17
ANSWER_LINES = 2
CHANGED: Colour = (255, 138, 120)


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture of the sheet.

    Attributes
    ----------
    picture : ndarray of uint8, shape (side, side, 3)
        As large as it is shown.
    title, answer : str
        Above and below it.
    flipped : bool
        The answer contradicts that about the image as it is.
    note : str
        Below the answer.
    """

    picture: Picture
    title: str
    answer: str
    flipped: bool
    note: str = ""


def tile_of(image: InputImage, looked: Looked, title: str, *, flipped: bool = False, note: str = "") -> Tile:
    """Draw an image under its own grid; only the tile is kept of it."""
    picture = Scene.of(image, looked.area, WIDTH).heated(looked.grid)
    return Tile(picture, title, looked.answer or "(nothing)", flipped, note)


def draw_sheet(tiles: Sequence[Tile], record: RobustnessRecord, marks: Sequence[str]) -> bytes:
    """Draw the sheet as PNG.

    Parameters
    ----------
    tiles : sequence of Tile
        The original first.
    marks : sequence of str
        What must be said beside the notices, such as that the model is a test model.
    """
    across = min(ACROSS, key=lambda many: (-len(tiles) % many, -many))
    down = -(-len(tiles) // across)
    width = across * (WIDTH + GAP) + GAP
    room = (width - 2 * GAP) * FINE
    words = [
        *((line, 18, WHITE) for line in wrapped(record.question, font_of(18), room, most=2)),
        *((line, 13, GREY) for line in wrapped(f"{record.study_id} / {record.dicom_id}", font_of(13), room, most=1)),
    ]
    notices = [
        line
        for sentence in (f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}", *marks)
        for line in wrapped(sentence, font_of(13), room)
    ]
    header = GAP + sum(size + 8 for _, size, _ in words)
    step = LINE + WIDTH + (ANSWER_LINES + 1) * LINE + GAP
    canvas = Image.new("RGB", (width * FINE, (header + down * step + len(notices) * LINE + GAP) * FINE), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    y = float(GAP)
    for text, size, colour in words:
        write(draw, (GAP * FINE, y * FINE), text, font_of(size), anchor="lt", colour=colour)
        y += size + 8
    for number, tile in enumerate(tiles):
        _paste(canvas, draw, tile, (GAP + number % across * (WIDTH + GAP), header + number // across * step))
    for number, text in enumerate(notices):
        at = (GAP * FINE, (header + down * step + (number + 0.5) * LINE) * FINE)
        write(draw, at, text, font_of(13), anchor="lm", colour=AMBER)
    return png(canvas)


def _paste(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, at: tuple[int, int]) -> None:
    left, top = at
    font, room = font_of(12), WIDTH * FINE
    (title,) = wrapped(tile.title, font, room, most=1) or [""]
    write(draw, (left * FINE, (top + LINE / 2) * FINE), title, font, anchor="lm", colour=GREY)
    fine = Image.fromarray(tile.picture).resize((WIDTH * FINE, WIDTH * FINE), Image.Resampling.NEAREST)
    canvas.paste(fine, (left * FINE, (top + LINE) * FINE))
    answer = f"contradicts: {tile.answer}" if tile.flipped else tile.answer
    lines = [(line, CHANGED if tile.flipped else WHITE) for line in wrapped(answer, font, room, most=ANSWER_LINES)]
    lines += [(line, GREY) for line in wrapped(tile.note, font, room, most=1)]
    for number, (line, colour) in enumerate(lines):
        y = top + LINE + WIDTH + (number + 0.6) * LINE
        write(draw, (left * FINE, y * FINE), line, font, anchor="lm", colour=colour)
