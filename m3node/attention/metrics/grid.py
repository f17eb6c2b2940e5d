"""The metrics of one grid (docs/attention.md has the formulas)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3node.attention.images.image import InputImage, Side
from m3node.attention.metrics.cells import Area, FloatArray, as_distribution, body_share, centres, share_before
from m3node.attention.metrics.values import GridMetrics

_OPPOSITE: dict[Side, Side] = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


def grid_metrics(
    grid: npt.NDArray[np.floating], area: Area, image: InputImage, truth: npt.NDArray[np.bool_] | None = None
) -> GridMetrics:
    """Measure one grid.

    Parameters
    ----------
    grid : ndarray of float, shape (cells down, cells across)
        Attention; see `as_distribution`.
    area : tuple of float
        ``(r0, c0, r1, c1)``: what it covers, in pixel edges of the image.
    image : InputImage
        With its body, where that was found.
    truth : ndarray of bool, optional, shape (rows, columns)
        What the question is about. One without a pixel is none.
    """
    _check(grid, area, image, truth)
    shares = as_distribution(grid)
    entropy, normalised = _entropies(shares)
    sides = half_fractions(shares, area, image.shape)
    head: Side = image.patient_head or "top"
    row, column = _centre_of_mass(shares, area, image.shape)
    seen = truth if truth is not None and truth.any() else None
    return GridMetrics(
        entropy=entropy,
        entropy_normalised=normalised,
        focus=float(shares.max()),
        inside_body=inside(shares, area, image.body),
        border_fraction=_border(shares),
        left_fraction=sides["left"],
        right_fraction=sides["right"],
        patient_left_fraction=None if image.patient_left is None else sides[image.patient_left],
        patient_right_fraction=None if image.patient_left is None else sides[_OPPOSITE[image.patient_left]],
        apical_fraction=sides[head],
        basal_fraction=sides[_OPPOSITE[head]],
        centre_row=row,
        centre_column=column,
        truth_inside=inside(shares, area, seen),
        pointing_hit=None if seen is None else _points_into(shares, area, seen),
    )


def inside(shares: FloatArray, area: Area, mask: npt.NDArray[np.bool_] | None) -> float | None:
    """Sum the shares inside a mask, each cell's spread evenly over the cell; None without a mask or a pixel in it."""
    if mask is None or not mask.any():
        return None
    rows, columns = shares.shape
    return _share(float(np.sum(shares * body_share(mask, area, (rows, columns)))))


def half_fractions(shares: FloatArray, area: Area, shape: tuple[int, int]) -> dict[Side, float]:
    """Sum the shares on each side of the image's middle lines; a cell that a line cuts counts by parts."""
    r0, c0, r1, c1 = area
    rows, columns = shape
    top = _share(float(shares.sum(axis=1) @ share_before(rows / 2, shares.shape[0], r0, r1)))
    left = _share(float(shares.sum(axis=0) @ share_before(columns / 2, shares.shape[1], c0, c1)))
    return {"left": left, "right": 1.0 - left, "top": top, "bottom": 1.0 - top}


def _check(grid: npt.NDArray[np.floating], area: Area, image: InputImage, truth: npt.NDArray[np.bool_] | None) -> None:
    r0, c0, r1, c1 = area
    if grid.ndim != 2 or grid.size == 0 or not (r0 < r1 and c0 < c1):
        raise ValueError(f"no grid: shape {grid.shape} over {area}")
    for name, mask in (("body", image.body), ("truth", truth)):
        if mask is not None and mask.shape != image.shape:
            raise ValueError(f"a {name} of {mask.shape} pixels in an image of {image.shape}")


def _entropies(shares: FloatArray) -> tuple[float, float]:
    """In nats, and as a share of the most that there can be."""
    some = shares[shares > 0]
    entropy = max(0.0, float(-np.sum(some * np.log(some))))
    return entropy, _share(entropy / np.log(shares.size)) if shares.size > 1 else 0.0


def _border(shares: FloatArray) -> float:
    return _share(1.0 - float(shares[1:-1, 1:-1].sum()))


def _centre_of_mass(shares: FloatArray, area: Area, shape: tuple[int, int]) -> tuple[float, float]:
    r0, c0, r1, c1 = area
    row = float(shares.sum(axis=1) @ centres(shares.shape[0], r0, r1)) / shape[0]
    column = float(shares.sum(axis=0) @ centres(shares.shape[1], c0, c1)) / shape[1]
    return row, column


def _points_into(shares: FloatArray, area: Area, truth: npt.NDArray[np.bool_]) -> bool:
    """Whether the largest cell's centre lies in the truth; of several that are as large, each one's."""
    r0, c0, r1, c1 = area
    largest_rows, largest_columns = np.nonzero(shares == shares.max())
    rows = np.floor(centres(shares.shape[0], r0, r1)[largest_rows]).astype(np.int64)
    columns = np.floor(centres(shares.shape[1], c0, c1)[largest_columns]).astype(np.int64)
    there = (rows >= 0) & (rows < truth.shape[0]) & (columns >= 0) & (columns < truth.shape[1])
    return bool(there.all() and truth[rows, columns].all())


def _share(value: float) -> float:
    """Without what rounding adds beyond 0 and 1."""
    return float(min(1.0, max(0.0, value)))
