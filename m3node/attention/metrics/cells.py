"""How a grid lies on an image: what of each cell is covered by a mask, and lies on either side of a line."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Area = tuple[float, float, float, float]
"""``(r0, c0, r1, c1)``: what a grid covers, in pixel edges of the image."""

FloatArray = npt.NDArray[np.float64]


def as_distribution(grid: npt.NDArray[np.floating]) -> FloatArray:
    """Bring a grid to shares that add up to 1.

    What is no finite number above 0 counts as nothing; where nothing is left all cells are alike, so that every metric
    of a grid that could not be read has a value, and says that nothing stands out.

    Parameters
    ----------
    grid : ndarray of float
        Of any shape, at least one cell.
    """
    if grid.size == 0:
        raise ValueError("a grid without cells")
    shares = np.asarray(grid, dtype=np.float64)
    shares = np.where(np.isfinite(shares) & (shares > 0), shares, 0.0)
    largest = shares.max()
    if largest == 0:
        return np.full(shares.shape, 1.0 / shares.size)
    shares = shares / largest  # before the sum, which might be more than a number can be
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def edges(cells: int, first: float, last: float) -> FloatArray:
    """Where the cells along one axis begin and end, in pixel edges; one more than there are cells."""
    return np.linspace(first, last, cells + 1)


def body_share(mask: npt.NDArray[np.bool_], area: Area, cells: tuple[int, int]) -> FloatArray:
    """Say how much of each cell a mask covers.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
        On the image's pixels.
    area : tuple of float
        What the grid covers.
    cells : tuple of int
        Cells down and across.

    Returns
    -------
    ndarray of float64, shape of cells
        0…1, by area and exact: a pixel belongs to several cells where their edges cut it. Padding is not covered.
    """
    r0, c0, r1, c1 = area
    across = _overlap(edges(cells[1], c0, c1), mask.shape[1])
    covered = np.zeros(cells)
    down = edges(cells[0], r0, r1)
    for cell, (top, bottom) in enumerate(pairwise(down)):
        # A band of rows at a time: of a large image no copy in floats is made as a whole.
        first, last = max(0, math.floor(top)), min(mask.shape[0], math.ceil(bottom))
        if first < last:
            weights = _overlap(np.array([top, bottom]) - first, last - first)[0]
            covered[cell] = (weights @ mask[first:last].astype(np.float64)) @ across.T
    size = (r1 - r0) / cells[0] * (c1 - c0) / cells[1]
    return np.clip(covered / size, 0.0, 1.0)


def share_before(line: float, cells: int, first: float, last: float) -> FloatArray:
    """Share of each cell along one axis that lies before a line."""
    bounds = edges(cells, first, last)
    return np.asarray(np.clip((line - bounds[:-1]) / (bounds[1:] - bounds[:-1]), 0.0, 1.0), dtype=np.float64)


def centres(cells: int, first: float, last: float) -> FloatArray:
    """Where the cells' centres lie along one axis, in pixel edges: the first pixel's centre is 0.5."""
    bounds = edges(cells, first, last)
    return np.asarray((bounds[:-1] + bounds[1:]) / 2, dtype=np.float64)


def _overlap(bounds: FloatArray, pixels: int) -> FloatArray:
    """Length of each pixel in each cell, shape (cells, pixels)."""
    start = np.arange(pixels)
    shared = np.minimum(bounds[1:, None], start + 1) - np.maximum(bounds[:-1, None], start)
    return np.asarray(np.maximum(shared, 0.0), dtype=np.float64)
