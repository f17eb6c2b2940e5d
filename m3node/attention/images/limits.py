"""How large and how small an image may be."""

from __future__ import annotations

import math

from m3node.errors import ImageError

MAX_PIXELS = 89_478_485
"""PIL's limit against decompression bombs; five times the pixels of the largest flat-panel detector.

An image takes at most eight bytes a pixel while it is read (three in the end), so 720 MB at this limit.
"""

MIN_SIDE = 8
"""Pixels; what is smaller shows nothing, and where in it a model looks says nothing."""

MAX_ASPECT = 20.0
"""Longest to shortest pixel side, and image side in mm: beyond, it is a number that is wrong, or nearly all padding."""


def check_size(name: str, rows: int, columns: int) -> None:
    """Refuse an image by its size in pixels, before its pixels are read.

    Raises
    ------
    ImageError
        Too small or too large.
    """
    if min(rows, columns) < MIN_SIDE:
        raise ImageError(
            f"{name} is {rows}×{columns} pixels: too small to ask about, {MIN_SIDE}×{MIN_SIDE} is the least"
        )
    if rows * columns > MAX_PIXELS:
        raise ImageError(
            f"{name} is {rows}×{columns} pixels: more than {MAX_PIXELS // 1_000_000} million are not read; "
            "make it smaller"
        )


def check_spacing(name: str, rows: int, columns: int, spacing: tuple[float, float]) -> None:
    """Refuse an image whose sides in millimetres cannot be right.

    Raises
    ------
    ImageError
        Pixels, or the whole, far longer than wide.
    """
    down, across = spacing
    for what, ratio in (("pixels", down / across), ("sides", down * rows / (across * columns))):
        if not 1.0 / MAX_ASPECT <= ratio <= MAX_ASPECT or not math.isfinite(ratio):
            raise ImageError(
                f"{name} has {what} in the ratio {ratio:.3g} by its pixel spacing of {down:g}×{across:g} mm; "
                "correct the spacing or crop the image"
            )
