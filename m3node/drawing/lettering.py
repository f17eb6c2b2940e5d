"""Letters on pictures: readable on bone and on air, and smooth."""

from __future__ import annotations

import unicodedata

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND = (16, 18, 22)
WHITE = (236, 238, 240)
GREY = (150, 156, 164)
AMBER = (255, 190, 70)

FINE = 2
"""Lines and letters are drawn on a canvas so many times as large and shrunk with it, which smooths them."""

UNKNOWN = "?"
"""Stands for a letter that can neither be drawn nor spelt."""

_BEYOND_ASCII = frozenset("©«»°±´·‘’“”…‹›")
"""What the typeface has beside ASCII; of anything else it draws a box."""

_SPELT = {
    **{"–": "-", "—": "-", "−": "-", "×": "x", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf"},
    **{
        "→": "->",
        "←": "<-",
        "↔": "<->",
        "•": "·",
        "⁄": "/",
        "µ": "u",
        "„": '"',
        "‚": "'",
        "‐": "-",
        "‑": "-",
        "‒": "-",
        "―": "-",
    },
    **{"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "đ": "d"},
    **{"Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "ħ": "h", "Ħ": "H", "ς": "sigma"},
}


def font_of(size: int) -> Font:
    """Pillow's own typeface, so that a picture looks the same on every machine; ``size`` in pixels of the result."""
    return ImageFont.load_default(size * FINE)


def drawable(text: str) -> str:
    """Spell a text with the letters that the typeface has, on one line.

    Accents are left out, Greek letters named (α is alpha), signs spelt (→ is ->), line breaks become spaces, and every
    other letter that it lacks, such as a Chinese one, becomes a question mark.
    """
    return "".join(_spelt(letter) for letter in text)


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
    draw.text(at, drawable(text), font=font, fill=colour, anchor=anchor, stroke_width=FINE, stroke_fill=BACKGROUND)


def shortened(draw: ImageDraw.ImageDraw, text: str, font: Font, room: float) -> str:
    """Text as it is drawn, with its last words left out until it fits ``room`` canvas pixels."""
    text = drawable(text)
    # Nothing that goes on behind the first letter too many can fit: not word by word from the end of a long text.
    text = text[: fitting(draw, text, font, room) + 1]
    while text and draw.textlength(text, font=font) > room:
        text = text.rsplit(" ", 1)[0].rstrip(".") + "..." if " " in text else text[:-1]
    return text


def fitting(draw: ImageDraw.ImageDraw, text: str, font: Font, room: float) -> int:
    """How many of the first letters of a `drawable` text fit ``room`` canvas pixels.

    However long the text is, not much more of it is measured than fits.
    """
    low, high = 0, 64
    while high < len(text) and draw.textlength(text[:high], font=font) <= room:
        low, high = high, 2 * high
    high = min(high, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if draw.textlength(text[:middle], font=font) <= room else (low, middle - 1)
    return low


def _spelt(letter: str) -> str:
    if " " <= letter <= "~" or letter in _BEYOND_ASCII:
        return letter
    if letter in _SPELT or letter.isspace():
        return _SPELT.get(letter, " ")
    if unicodedata.category(letter) in {"Mn", "Me", "Cf", "Cc"}:
        return ""  # accents on the letter before, and what has no shape of its own
    parts = unicodedata.normalize("NFKD", letter)
    if parts != letter:
        spelt = drawable(parts)
        return UNKNOWN if UNKNOWN in spelt else spelt
    return _greek(letter) or UNKNOWN


def _greek(letter: str) -> str:
    name = unicodedata.name(letter, "")
    for case, prefix in ((str.lower, "GREEK SMALL LETTER "), (str.capitalize, "GREEK CAPITAL LETTER ")):
        if name.startswith(prefix):
            return case(name.removeprefix(prefix).split()[0].replace("LAMDA", "LAMBDA"))
    return ""
