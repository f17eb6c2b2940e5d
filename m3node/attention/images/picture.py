"""Reads PNG and JPEG as they are to be shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.images.limits import check_size, check_spacing
from m3node.attention.images.names import shown
from m3node.errors import ImageError
from m3node.intake.series.part10 import PARSER_ERRORS

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""What PNG and JPEG files begin with."""

_FORMATS = ("PNG", "JPEG")

_DECODER_ERRORS = (*PARSER_ERRORS, OSError, SyntaxError)
"""What PIL raises on bytes that are not what they claim to be."""

_ORIENTATION = 0x0112
"""EXIF tag; 1 is as stored."""

_STRIP = 1 << 20
"""Pixels that are converted together."""

_GREY_SPREAD = 12
_GREY_SHARE = 0.99
"""An image is grey when so many pixels' channels differ by so little: JPEG blurs colour, and readers draw arrows."""


def read_picture(path: Path) -> InputImage:
    """Read a PNG or JPEG.

    EXIF orientation is applied (boxes and masks are of the image so turned), transparency put on black, palettes and
    CMYK resolved. Grey of 16 bits is stretched from its lowest to its highest value, since nothing says how many of
    the bits are used.

    Raises
    ------
    ImageError
        Too small, too large, cut short or broken.
    """
    with opened(path) as picture:
        rgb = _rgb(picture)
    check_spacing(shown(path), rgb.shape[0], rgb.shape[1], (1.0, 1.0))
    kind = ImageKind.XRAY if is_grey(rgb) else ImageKind.OTHER
    return InputImage(path=path, rgb=rgb, kind=kind)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a PNG or JPEG of a size that is fit; errors while it is read are `ImageError`, too."""
    name = shown(path)
    try:
        with warnings.catch_warnings():
            # Size is checked below; other warnings are about metadata that nobody here reads.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                check_size(name, picture.height, picture.width)
                yield picture
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has far more pixels than are read; make it smaller") from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name} cannot be read as a picture: it is damaged or cut short; copy it again") from error


def is_grey(rgb: npt.NDArray[np.uint8]) -> bool:
    """Whether an image shows no colour, apart from drawn signs."""
    step = max(1, max(rgb.shape) // 1024)
    some = rgb[::step, ::step]
    return bool(np.mean(np.ptp(some, axis=-1) <= _GREY_SPREAD) >= _GREY_SHARE)


def _rgb(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Convert strip by strip: PIL would hold several copies of the whole."""
    if _is_turned(picture):
        picture = ImageOps.exif_transpose(picture)
    deep = picture.mode.startswith(("I", "F"))
    low, high = cast(tuple[float, float], picture.getextrema()) if deep else (0.0, 0.0)
    rgb = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        if deep:
            rgb[top : top + rows] = _stretched(np.asarray(strip), low, high)[..., np.newaxis]
        else:
            rgb[top : top + rows] = np.asarray(_opaque(strip).convert("RGB"))
    return rgb


def _is_turned(picture: Image.Image) -> bool:
    try:
        return bool(picture.getexif().get(_ORIENTATION, 1) != 1)
    except _DECODER_ERRORS:  # the picture itself may be whole
        return False


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode not in {"LA", "PA", "RGBA", "La", "RGBa"} and "transparency" not in picture.info:
        return picture
    transparent = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", transparent.size, (0, 0, 0, 255)), transparent)


def _stretched(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.uint8]:
    share = (values.astype(np.float64) - low) / max(high - low, 1.0)
    return np.asarray(np.rint(255.0 * share), dtype=np.uint8)


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Repeat a grey image for red, green and blue."""
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)
