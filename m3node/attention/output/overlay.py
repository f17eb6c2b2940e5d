"""``overlays/{key}_overlay.png``: the image under its heat map, and the words that it must not go without."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from m3node.attention.output.lines import wrapped
from m3node.attention.output.scene import TRUTH, Scene
from m3node.drawing.lettering import AMBER, BACKGROUND, FINE, font_of, write
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

WIDTH = 560
"""Longer side of the image on it, in pixels."""

LEAST = 300
"""A narrower image stands in the middle, so that the words below can be read."""

_LINE = 17
_GAP = 8


def draw_overlay(
    scene: Scene,
    grid: npt.NDArray[np.float32],
    truth: npt.NDArray[np.bool_] | None,
    marks: tuple[str, ...],
) -> bytes:
    """Draw the overlay as PNG.

    Parameters
    ----------
    scene : Scene
        Of the image, for tiles of `WIDTH`.
    grid : ndarray of float32, shape (tokens, tokens)
        What is laid over it.
    truth : ndarray of bool or None, shape (rows, columns)
        Outlined where it is known.
    marks : tuple of str
        What else must be said, such as that the model is a test model.
    """
    tile = scene.canvas(scene.heated(grid))
    draw = ImageDraw.Draw(tile)
    if truth is not None:
        scene.outline(draw, truth, TRUTH, 1.5)
    scene.letter(draw)
    shown = scene.cut(tile)
    width = max(shown.width, LEAST * FINE)
    font = font_of(12)
    words = [
        line
        for sentence in (ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE, *marks)
        for line in wrapped(sentence, font, width - 2 * _GAP * FINE)
    ]
    height = shown.height + (len(words) * _LINE + 2 * _GAP) * FINE
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    sheet.paste(shown, ((width - shown.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(words):
        y = shown.height + (_GAP + (number + 0.5) * _LINE) * FINE
        write(draw, (_GAP * FINE, y), line, font, anchor="lm", colour=AMBER)
    return png(sheet)


def png(sheet: Image.Image) -> bytes:
    """Shrink a canvas to its picture, as PNG."""
    stream = io.BytesIO()
    # A third of the time of the default level, for files that are a tenth larger: there may be thousands.
    sheet.reduce(FINE).save(stream, format="PNG", compress_level=3)
    return stream.getvalue()
