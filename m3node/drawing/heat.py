"""Heat maps over grey pictures: one colour scale, how it is laid over a picture, and the bar that explains it.

The scale is a path through OKLab (Ottosson, 2020) of even lightness steps, from dark violet over red to light yellow:
what is more is lighter, also for those who do not tell red from green, and on a grey print.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

OPACITY = 0.75
"""Of the strongest value: what lies below must stay visible."""

FAINT = 0.25
"""Share of the peak below which the map fades, down to nothing at 0."""

_LIGHTNESS = (0.28, 0.93)
_HUE_DEGREES = (300.0, 462.0)
_CHROMA = 0.14

_LMS_FROM_LAB = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _scale(steps: int) -> UInt8Array:
    lightness = np.linspace(*_LIGHTNESS, steps)
    hue = np.radians(np.linspace(*_HUE_DEGREES, steps))
    lab = np.stack([lightness, _CHROMA * np.cos(hue), _CHROMA * np.sin(hue)], axis=1)
    linear = np.clip((lab @ _LMS_FROM_LAB.T) ** 3 @ _RGB_FROM_LMS.T, 0.0, 1.0)
    # Linear light to sRGB (IEC 61966-2-1).
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(encoded * 255.0), dtype=np.uint8)


SCALE: UInt8Array = _scale(256)
"""Shape (256, 3), red, green, blue: from nothing to the peak."""


def overlaid(picture: UInt8Array, values: npt.NDArray[np.floating], peak: float) -> UInt8Array:
    """Lay a heat map over a picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        What lies below.
    values : ndarray of float, shape (rows, columns)
        At least 0.
    peak : float
        The value that gets the scale's last colour; what is above gets it, too.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        The picture itself where the value is 0.
    """
    share = np.clip(np.asarray(values, dtype=np.float32) * np.float32(1.0 / peak if peak else 0.0), 0.0, 1.0)
    opacity = OPACITY * np.minimum(1.0, share / FAINT)[..., None]
    colour = SCALE[np.asarray(np.round(share * 255.0), dtype=np.intp)]
    return np.asarray(np.round(picture * (1.0 - opacity) + colour * opacity), dtype=np.uint8)


def colour_bar(height: int, width: int, *, grey: int = 96) -> UInt8Array:
    """Draw the scale, the peak on top, as it looks over a grey like that of soft tissue.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    share = np.repeat(np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None], width, axis=1)
    return overlaid(np.full((height, width, 3), grey, dtype=np.uint8), share, 1.0)
