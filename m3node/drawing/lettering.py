"""Letters on pictures: readable on bone and on air, and smooth."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND = (16, 18, 22)
WHITE = (236, 238, 240)
GREY = (150, 156, 164)
AMBER = (255, 190, 70)

FINE = 2
"""Lines and letters are drawn on a canvas so many times as large and shrunk with it, which smooths them."""


def font_of(size: int) -> Font:
    """Pillow's own typeface, so that a picture looks the same on every machine; ``size`` in pixels of the result."""
    return ImageFont.load_default(size * FINE)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: Font,
    *,
    anchor: str,
    colour: Colour = WHITE,
) -> None:
    """Write with a dark rim, at canvas coordinates."""
    draw.text(at, text, font=font, fill=colour, anchor=anchor, stroke_width=FINE, stroke_fill=BACKGROUND)


def shortened(draw: ImageDraw.ImageDraw, text: str, font: Font, room: float) -> str:
    """Text with its last words left out until it fits ``room`` canvas pixels."""
    while text and draw.textlength(text, font=font) > room:
        text = text.rsplit(" ", 1)[0].rstrip(".") + "..." if " " in text else text[:-1]
    return text
