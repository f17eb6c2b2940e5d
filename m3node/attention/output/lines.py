"""Sentences broken into lines for pictures."""

from __future__ import annotations

from PIL import Image, ImageDraw

from m3node.drawing.lettering import Font, drawable, shortened

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
        fitting = _fitting(rest, font, room)
        lines.append(rest[:fitting].rstrip())
        rest = rest[fitting:].lstrip()
    return lines


def _fitting(text: str, font: Font, room: float) -> int:
    """How many characters go on a line: up to the last blank that fits, or as many as do."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _RULER.textlength(text[:middle], font=font) <= room else (low, middle - 1)
    if low == len(text) or text[low] == " ":
        return low
    blank = text.rfind(" ", 0, low + 1)
    return blank if blank > 0 else low
