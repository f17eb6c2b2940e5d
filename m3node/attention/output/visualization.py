"""``visualizations/{key}_full.png``: all that there is to see of one question, on one sheet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from m3node.attention.metrics.values import GridMetrics
from m3node.attention.output.lines import wrapped
from m3node.attention.output.overlay import png
from m3node.attention.output.rows import Row
from m3node.attention.output.scene import BODY, TRUTH, Picture, Scene, peak_of
from m3node.attention.reading.plan import Mode
from m3node.drawing.heat import colour_bar
from m3node.drawing.lettering import AMBER, BACKGROUND, FINE, GREY, WHITE, Colour, font_of, write
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

TILE = 340
GAP = 12
TITLE = 22
BAR_ROOM = 92
BAR_WIDTH = 16
LINE = 21

DEGENERATE_MARK = "No mode gave a grid that says anything."

RIGHT: Colour = (126, 208, 150)
WRONG: Colour = (255, 138, 120)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """What a sheet shows.

    Attributes
    ----------
    scene : Scene
        Of the image, for tiles of `TILE`.
    grid : ndarray of float32, shape (tokens, tokens)
        Adds up to 1.
    body_share : ndarray of float or None, shape (tokens, tokens)
        Share of each cell that the body covers.
    body, truth : ndarray of bool or None, shape (rows, columns)
        Of the image's own pixels.
    row : Row
        Words and numbers.
    marks : tuple of str
        What else must be said, such as that the model is a test model.
    region : str
        What ``body`` is called: for studies of the liver it is that.
    """

    scene: Scene
    grid: npt.NDArray[np.float32]
    body_share: npt.NDArray[np.floating] | None
    body: npt.NDArray[np.bool_] | None
    truth: npt.NDArray[np.bool_] | None
    row: Row
    marks: tuple[str, ...]
    region: str = "body"


def draw_visualization(sheet: Sheet) -> bytes:
    """Draw the sheet as PNG."""
    width = 3 * (TILE + GAP) + GAP + BAR_ROOM
    words = _words(sheet.row, width)
    header = GAP + sum(size + 8 for _, size, _ in words) + 2
    notices = (f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}", *sheet.marks)
    height = header + 2 * (TITLE + TILE + GAP) + 22 * len(notices) + GAP
    canvas = Image.new("RGB", (width * FINE, height * FINE), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    y = float(GAP)
    for text, size, colour in words:
        write(draw, (GAP * FINE, y * FINE), text, font_of(size), anchor="lt", colour=colour)
        y += size + 8
    for number, (title, tile) in enumerate(_tiles(sheet)):
        left, top = GAP + number % 3 * (TILE + GAP), header + number // 3 * (TITLE + TILE + GAP)
        write(draw, (left * FINE, (top + TITLE / 2) * FINE), title, font_of(13), anchor="lm", colour=GREY)
        canvas.paste(tile, (left * FINE, (top + TITLE) * FINE))
    _draw_bar(canvas, draw, peak_of(sheet.grid), (width - BAR_ROOM, header + TITLE))
    _draw_metrics(draw, sheet.row, (2 * (TILE + GAP) + GAP, header + TITLE + TILE + GAP), width - GAP)
    for number, text in enumerate(notices):
        at = (width * FINE / 2, (height - GAP / 2 - 22 * (len(notices) - number - 0.5)) * FINE)
        write(draw, at, text, font_of(15), anchor="mm", colour=AMBER)
    return png(canvas)


def metric_lines(metrics: GridMetrics) -> list[tuple[str, str]]:
    """Name the metrics for people, with their values; those that the image does not allow are left out."""
    m = metrics
    found: list[tuple[str, str | None]] = [
        ("entropy", f"{m.entropy:.2f} nats, {_percent(m.entropy_normalised)} of the most"),
        ("focus (largest cell)", _percent(m.focus)),
        ("inside the body", _percent(m.inside_body)),
        ("on the border", _percent(m.border_fraction)),
        ("image left / right", _both(m.left_fraction, m.right_fraction)),
        ("patient left / right", _both(m.patient_left_fraction, m.patient_right_fraction)),
        ("apical / basal", _both(m.apical_fraction, m.basal_fraction)),
        ("centre, down / across", f"{m.centre_row:.2f} / {m.centre_column:.2f}"),
        ("inside the truth", _percent(m.truth_inside)),
        ("largest cell hits the truth", None if m.pointing_hit is None else "yes" if m.pointing_hit else "no"),
    ]
    return [(name, value) for name, value in found if value is not None]


def verdict(row: Row) -> str:
    """Say how the answer stands to the truth."""
    if not row.ground_truth:
        return "no truth is known"
    return f"truth: {row.ground_truth}" + ("" if row.correct is None else ", right" if row.correct else ", wrong")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share * 100.0:.1f} %"


def _both(first: float | None, second: float | None) -> str | None:
    return None if first is None or second is None else f"{_percent(first)} / {_percent(second)}"


def _words(row: Row, width: int) -> list[tuple[str, int, Colour]]:
    room = (width - 2 * GAP) * FINE
    shade = WHITE if row.correct is None else RIGHT if row.correct else WRONG
    about = " / ".join(part for part in (row.study_id, row.dicom_id) if part)
    about += f", variant {row.variant_index}" + (f" ({row.strategy})" if row.strategy else "")
    said = f"{row.answer or '(nothing)'}   [{verdict(row)}]"
    return [
        *((line, 20, WHITE) for line in wrapped(row.question, font_of(20), room, most=2)),
        *((line, 17, shade) for line in wrapped(said, font_of(17), room, most=2)),
        *((line, 13, GREY) for line in wrapped(f"{about}. Model: {row.model}.", font_of(13), room, most=2)),
    ]


def _tiles(sheet: Sheet) -> list[tuple[str, Image.Image]]:
    scene, grid = sheet.scene, sheet.grid
    peak, cells = peak_of(grid), grid.shape[0]
    tiles: list[tuple[str, Picture]] = [
        ("as the model is shown it", scene.picture),
        (f"the grid, {cells} x {cells} image tokens", scene.blocks(grid, peak)),
        ("the grid over the image", scene.heated(grid)),
    ]
    if sheet.body is None or sheet.body_share is None:
        empty = np.full_like(scene.picture, 24)
        tiles += [(f"attention inside the {sheet.region}", empty), (f"the {sheet.region}", empty)]
    else:
        tiles += [
            (f"attention inside the {sheet.region}", scene.blocks(grid * sheet.body_share, peak)),
            (f"the {sheet.region}", scene.masked(sheet.body)),
        ]
    drawn = []
    for number, (title, picture) in enumerate(tiles):
        tile = scene.canvas(picture)
        draw = ImageDraw.Draw(tile)
        scene.frame(draw)
        if sheet.body is None and number > 2:
            middle = TILE * FINE / 2
            write(draw, (middle, middle), f"no {sheet.region} is known", font_of(14), anchor="mm", colour=GREY)
        elif sheet.body is not None and number in {3, 4}:
            scene.outline(draw, sheet.body, BODY, 1.5)
        if sheet.truth is not None and number in {0, 1, 2, 4}:
            scene.outline(draw, sheet.truth, TRUTH, 1.5)
        if number in {0, 2}:
            scene.letter(draw)
        drawn.append((title, tile))
    return drawn


def _draw_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw, peak: float, at: tuple[int, int]) -> None:
    left, top = at
    head = 40
    height = TILE - head
    for number, words in enumerate(("share of", "attention, a cell")):
        write(draw, (left * FINE, (top + 16 * number) * FINE), words, font_of(11), anchor="lt", colour=GREY)
    canvas.paste(Image.fromarray(colour_bar(height * FINE, BAR_WIDTH * FINE)), (left * FINE, (top + head) * FINE))
    for share in (1.0, 0.75, 0.5, 0.25, 0.0):
        y, x = (top + head + (1.0 - share) * height) * FINE, (left + BAR_WIDTH) * FINE
        draw.line([(x, y), (x + 4 * FINE, y)], fill=WHITE, width=FINE)
        text = f"{share * peak * 100.0:.{1 if peak >= 0.04 else 2}f} %"
        anchor = "lt" if share == 1.0 else "lb" if share == 0.0 else "lm"
        write(draw, (x + 8 * FINE, y), text, font_of(12), anchor=anchor)


def _draw_metrics(draw: ImageDraw.ImageDraw, row: Row, at: tuple[int, int], right: int) -> None:
    left, top = at
    write(draw, (left * FINE, (top + TITLE / 2) * FINE), "in numbers", font_of(13), anchor="lm", colour=GREY)
    lines = [] if row.metrics is None else metric_lines(row.metrics)
    if row.image_share is not None:
        lines.append(("attention to the image at all", f"{row.image_share * 100.0:.1f} %"))
    if row.log_prob is not None:
        lines.append(("mean log-probability", f"{row.log_prob:.3f}"))
    lines.append(("mode", row.mode + (f" (asked: {row.asked_mode})" if row.mode != row.asked_mode else "")))
    lines.append(("layers", "all" if row.mode == Mode.ROLLOUT else _ranges(row.layers)))
    y = top + TITLE + 14.0
    for name, value in lines:
        write(draw, (left * FINE, y * FINE), name, font_of(13), anchor="ls", colour=GREY)
        write(draw, (right * FINE, y * FINE), value, font_of(13), anchor="rs")
        y += LINE
    if row.degenerate:
        room = (right - left) * FINE
        for line in wrapped(f"{DEGENERATE_MARK} Do not read this one.", font_of(13), room):
            write(draw, (left * FINE, y * FINE), line, font_of(13), anchor="ls", colour=AMBER)
            y += LINE


def _ranges(layers: tuple[int, ...]) -> str:
    """Name layers shortly: 0-5, 11."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    shown = ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
    return shown if len(shown) <= 30 else f"{len(layers)} of them"
