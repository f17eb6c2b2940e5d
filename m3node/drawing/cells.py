"""Values that stand for cells of a coarse grid, read at the pixels of an image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


def cells_on_pixels(
    values: npt.NDArray[np.floating], area: tuple[float, float, float, float], shape: tuple[int, int]
) -> Float32Array:
    """Interpolate a grid's values at pixel centres.

    Bilinear between the cells' centres; in the outer half of the outermost cells the value stays that of the cell, so
    that no pixel of the grid's area gets less than was measured there.

    Parameters
    ----------
    values : ndarray of float, shape (cells down, cells across)
        One value a cell.
    area : tuple of float
        (r0, c0, r1, c1): what the cells cover together, in pixel *edges* of the image; it may reach beyond the image.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        0 where the grid does not reach.
    """
    r0, c0, r1, c1 = area
    down = _weights(r0, r1, values.shape[0], shape[0])
    across = _weights(c0, c1, values.shape[1], shape[1])
    return np.asarray(down @ np.asarray(values, dtype=np.float64) @ across.T, dtype=np.float32)


def _weights(first: float, last: float, cells: int, pixels: int) -> npt.NDArray[np.float64]:
    """How much of each cell each pixel takes along one axis, shape (pixels, cells)."""
    along = (np.arange(pixels) + 0.5 - first) / (last - first) * cells
    centre = np.clip(along - 0.5, 0.0, cells - 1.0)
    weights: npt.NDArray[np.float64] = np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(cells)))
    weights[(along < 0.0) | (along > cells)] = 0.0
    return weights
