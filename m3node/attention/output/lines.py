"""Sentences broken into lines for pictures."""

from __future__ import annotations

from PIL import Image, ImageDraw

from m3node.drawing.lettering import Font, drawable, fitting, shortened

_RULER = ImageDraw.Draw(Image.new("RGB", (1, 1)))


def wrapped(text: str, font: Font, room: float, *, most: int = 0) -> list[str]:
    """Break a text into lines of at most ``room`` canvas pixels, as it is drawn.

    A word that is too long by itself is broken. With ``most``, what does not fit in so many lines is left out, and the
    last line says so by its dots.
    """
    lines: list[str] = []
    rest = " ".join(drawable(text).split())
    while rest:
        if most and len(lines) == most - 1:
            lines.append(shortened(_RULER, rest, font, room))
            break
        end = _line_end(rest, font, room)
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return lines


def _line_end(text: str, font: Font, room: float) -> int:
    """How many characters go on a line: up to the last blank that fits, or as many as do, but one at least."""
    end = max(1, fitting(_RULER, text, font, room))
    if end == len(text) or text[end] == " ":
        return end
    blank = text.rfind(" ", 0, end + 1)
    return blank if blank > 0 else end
