"""The published rendering of a CT slice: three HU windows as red, green and blue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WINDOWS = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))
"""Lowest and highest HU of red, green and blue: everything, soft tissue, and what lies around blood and brain."""

_LOWEST = int(np.iinfo(np.int16).min)


def ct_windows(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Render HU as the model was trained on them.

    Parameters
    ----------
    hu : ndarray of int16, shape (rows, columns)
        HU.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
        Each window from 0 to 255, rounded to the nearest level.
    """
    return _TABLE.take(hu.astype(np.int32) - _LOWEST, axis=0)  # four times as fast as brackets


def _table() -> npt.NDArray[np.uint8]:
    """The colour of every int16: looking up is faster than three windows of floats a pixel."""
    every = np.arange(_LOWEST, -_LOWEST, dtype=np.float64)
    channels = [np.rint((np.clip(every, low, high) - low) / (high - low) * 255.0) for low, high in WINDOWS]
    return np.stack(channels, axis=-1).astype(np.uint8)


_TABLE = _table()
