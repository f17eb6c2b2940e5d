"""Reads PNG and JPEG as they are to be shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

_GREY_SPREAD = 12
_GREY_SHARE = 0.99
"""An image is grey when so many pixels' channels differ by so little: JPEG blurs colour, and readers draw arrows."""


def read_picture(path: Path) -> InputImage:
    """Read a PNG or JPEG.

    EXIF orientation is applied, transparency put on black, palettes and CMYK resolved. Grey of 16 bits is stretched
    from its lowest to its highest value, since nothing says how many of the bits are used.

    Raises
    ------
    ImageError
        Too small, too large, cut short or broken.
    """
    with opened(path) as picture:
        rgb = _rgb(ImageOps.exif_transpose(picture))
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
    if picture.mode.startswith(("I", "F")):
        return grey_to_rgb(_stretched(np.asarray(picture)))
    if picture.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in picture.info:
        transparent = picture.convert("RGBA")
        black = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, transparent)
    return np.array(picture.convert("RGB"))


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Repeat a grey image for red, green and blue."""
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def _stretched(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    scaled = values.astype(np.float32) - low
    scaled *= 255.0 / max(high - low, 1.0)
    return np.asarray(np.rint(scaled), dtype=np.uint8)
