"""``pictures/<case>.png``: what each condition saw on the same slices, side by side."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from m3node.detectors.protocols import Box2D
from m3node.drawing.lettering import AMBER, BACKGROUND, FINE, GREY, WHITE, font_of, shortened, write
from m3node.durable import write_over
from m3node.evaluation.ablation.record import Record
from m3node.evaluation.ablation.regions import largest_lesion_slice
from m3node.evaluation.ablation.running import region_of
from m3node.evaluation.cases.layout import CaseFolder
from m3node.evaluation.cases.reading import Case, read_case
from m3node.evaluation.report.summary import Summary
from m3node.liver.region import LiverRegion
from m3node.progress import Progress
from m3node.results.display import Display
from m3node.results.tile import LIVER, Crop, Tile, common_extent, draw_marks, draw_outline, frame_of

TRUTH = (110, 190, 255)
FOUND = AMBER
TILE_WIDTH = 340
GAP = 10
HEADER = 60
TITLE = 24
FOOTER_LINE = 18
MOST_COLUMNS = 6


def choose_cases(cases: Sequence[CaseFolder], summary: Summary, count: int) -> tuple[CaseFolder, ...]:
    """Choose the cases that get a picture: every one without truth, and ``count`` others, ill and healthy in turn."""
    by_name = {case.name: case for case in cases}
    unknown = [record.case for record in summary.first if record.truth is None]
    ill = [record.case for record in summary.first if record.truth]
    healthy = [record.case for record in summary.first if record.truth is not None and not record.truth]
    turns = sorted([*((n, 0, name) for n, name in enumerate(ill)), *((n, 1, name) for n, name in enumerate(healthy))])
    chosen = [*unknown, *(name for _, _, name in turns[:count])] if count else []
    return tuple(by_name[name] for name in chosen)


def write_pictures(cases: Sequence[CaseFolder], summary: Summary, out: Path, progress: Progress) -> tuple[Path, ...]:
    """Draw one picture a case."""
    (out / "pictures").mkdir(exist_ok=True)
    written: list[Path] = []
    for done, folder in enumerate(cases, start=1):
        case = read_case(folder, summary.plan.settings)
        region = region_of(case, summary.plan, folder.digest())
        held = [next(r for r in summary.records[c.key] if r.case == folder.name) for c in summary.conditions]
        stream = io.BytesIO()
        _sheet(case, region, held[:MOST_COLUMNS], summary).save(stream, format="PNG", optimize=True)
        path = out / "pictures" / f"{folder.name}.png"
        write_over(path, stream.getvalue())
        written.append(path)
        progress("drawing", done, len(cases))
    return tuple(written)


def shown_slices(case: Case, region: LiverRegion | None, records: Sequence[Record]) -> list[int]:
    """One or two slices: where the conditions found most, and where the largest true lesion is.

    Where nothing was found the liver is largest; without a liver, the middle one. Only what the reader sees is chosen
    so; what the detector saw was chosen by the liver.
    """
    votes = Counter(k for record in records for k in {box.k for box in record.boxes})
    chosen: list[int] = []
    if votes:
        chosen.append(max(sorted(votes), key=lambda k: votes[k]))
    elif region is not None and region.parenchyma.count:
        chosen.append(region.parenchyma.start[0] + int(np.argmax(region.parenchyma.data.sum(axis=(1, 2)))))
    else:
        chosen.append(case.volume.geometry.shape[0] // 2)
    if case.lesions:
        chosen.append(largest_lesion_slice(case.lesions))
    return list(dict.fromkeys(chosen))


def _sheet(case: Case, region: LiverRegion | None, records: Sequence[Record], summary: Summary) -> Image.Image:
    geometry = case.volume.geometry
    slices = shown_slices(case, region, records)
    display = Display.of(geometry)
    crop = Crop(display, common_extent([display.turn(case.volume.hu[k]) for k in slices], display.spacing), TILE_WIDTH)
    tile_height = round(crop.size[1] / FINE)
    width = max(len(records) * (TILE_WIDTH + GAP) + GAP, 700)
    footer = FOOTER_LINE * (len(summary.marks) + 1)
    height = HEADER + TITLE + len(slices) * (tile_height + GAP) + footer
    sheet = Image.new("RGB", (width * FINE, height * FINE), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    room = (width - 2 * GAP) * FINE
    title = f"{case.folder.name}: {summary.label}"
    write(draw, (GAP * FINE, 20 * FINE), shortened(draw, title, font_of(18), room), font_of(18), anchor="lm")
    legend = "green: liver as it was used    amber: found    " + ("blue: true lesion" if case.lesions else "")
    legend += "" if case.lesions is not None else "no truth is known"
    write(draw, (GAP * FINE, 44 * FINE), legend, font_of(13), anchor="lm", colour=GREY)
    titles = {condition.key: condition.title for condition in summary.conditions}
    for column, record in enumerate(records):
        x = GAP + column * (TILE_WIDTH + GAP)
        said = f"{titles[record.condition]} ({len(record.found)} lesions)"
        font = font_of(13)
        said = shortened(draw, said, font, TILE_WIDTH * FINE)
        write(draw, (x * FINE, (HEADER + TITLE / 2) * FINE), said, font, anchor="lm", colour=WHITE)
        for row, k in enumerate(slices):
            tile = _tile(case, region, record, crop, k)
            sheet.paste(tile.canvas, (x * FINE, (HEADER + TITLE + row * (tile_height + GAP)) * FINE))
    for line, mark in enumerate(summary.marks):
        y = height - footer + FOOTER_LINE * (line + 0.75)
        text = shortened(draw, mark, font_of(12), room)
        write(draw, (GAP * FINE, y * FINE), text, font_of(12), anchor="lm", colour=AMBER)
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def _tile(case: Case, region: LiverRegion | None, record: Record, crop: Crop, k: int) -> Tile:
    tile = Tile.of(case.volume.hu[k], k, crop)
    draw = ImageDraw.Draw(tile.canvas)
    if region is not None:
        draw_outline(draw, tile, region.parenchyma.on_slice(k), LIVER, 1.0)
    for lesion in case.lesions or ():
        draw_outline(draw, tile, lesion.on_slice(k), TRUTH, 1.5)
    for found in (box for box in record.boxes if box.k == k):
        frame = frame_of(tile, Box2D(*found.box))
        draw.rectangle((frame.x0, frame.y0, frame.x1, frame.y1), outline=FOUND, width=round(1.5 * FINE))
        write(draw, (frame.x0, frame.y0 - 2 * FINE), f"{found.score:.2f}", font_of(11), anchor="lb", colour=FOUND)
    draw_marks(draw, tile, case.volume.geometry)
    return tile
