"""A grid over a changed image, brought back into the cells of the grid over the image before.

Attention is taken as spread evenly over each cell. A cell of the grid before is divided into small squares; each is
looked up where the change moved it to, and counts when it lies in both images. So a cell of which only a part lies in
both gets the density of that part: not less, because there is less of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.attention.robustness.perturbation import Affine

_FINE = 16
"""Squares along a side of a cell."""

SEEN = 0.5
"""A cell is compared when at least this share of it lies in both images."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a grid covers, and the image that it was made of.

    Attributes
    ----------
    area : tuple of float
        ``(r0, c0, r1, c1)`` of the whole grid, in pixel edges of the image; reaches beyond it where padding is.
    shape : tuple of int
        Rows and columns of the image.
    """

    area: tuple[float, float, float, float]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Undone:
    """A grid in another's cells.

    Attributes
    ----------
    grid : ndarray of float32, shape (tokens, tokens)
        Adds up to 1 over the cells that are compared, 0 elsewhere; all 0 when none of the attention lies there.
    compared : ndarray of bool, shape (tokens, tokens)
        Cells that lie in both images.
    left_out : float
        Share of the changed image's attention that lies outside the compared cells, 0…1: on what was not in the image
        before, or in cells that are left out.
    """

    grid: npt.NDArray[np.float32]
    compared: npt.NDArray[np.bool_]
    left_out: float


def undo(grid: npt.NDArray[np.floating], frame: Frame, to_original: Affine, original: Frame) -> Undone:
    """Bring a grid back.

    Where nothing moved, the grid itself comes back and every cell is compared, padding included. Where pixels moved,
    the padding of the one is not that of the other: only what lies in both images is compared.

    Parameters
    ----------
    grid : ndarray of float, shape (tokens, tokens)
        Over the changed image; at least 0.
    frame : Frame
        Of the changed image.
    to_original : ndarray of float64, shape (2, 3)
        Edge coordinates before, from those of the changed image.
    original : Frame
        Of the image before.
    """
    values = np.asarray(grid, dtype=np.float64)
    if frame == original and np.array_equal(to_original, [[1, 0, 0], [0, 1, 0]]):
        return Undone(np.asarray(grid, dtype=np.float32), np.ones(values.shape, dtype=np.bool_), 0.0)
    there = _squares(original.area, values.shape)
    here = np.einsum("ij,jrc->irc", np.linalg.inv(to_original[:, :2]), there - to_original[:, 2, None, None])
    both = _within(there, original.shape) & _within(here, frame.shape)
    density = np.where(both, values[_cells(here, frame.area, values.shape)], 0.0)

    share = _by_cell(both.astype(np.float64))
    compared = share >= SEEN
    mean = np.divide(_by_cell(density), share, out=np.zeros(values.shape), where=compared)
    # A square's mass: its area, as the changed image has it, by that of a cell there.
    small = _cell_size(original.area, values.shape) / abs(np.linalg.det(to_original[:, :2]))
    inside = float(_by_cell(density)[compared].sum() * small / _cell_size(frame.area, values.shape))
    total = mean.sum()
    return Undone(
        np.asarray(mean / total if total > 0 else mean, dtype=np.float32),
        compared,
        float(np.clip(1.0 - inside / max(values.sum(), np.finfo(np.float64).tiny), 0.0, 1.0)),
    )


def over_compared(
    grid: npt.NDArray[np.floating], compared: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the values of the compared cells, adding up to 1 where there are any, and the share that is left out."""
    values = np.asarray(grid, dtype=np.float64)
    total, kept = float(values.sum()), values[compared]
    inside = float(kept.sum())
    return (kept / inside if inside > 0 else kept), (
        float(np.clip(1.0 - inside / total, 0.0, 1.0)) if total > 0 else 1.0
    )


def _squares(area: tuple[float, ...], cells: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Middles of the small squares in edge coordinates: rows and columns, shape (2, squares down, squares across)."""
    r0, c0, r1, c1 = area
    down = r0 + (np.arange(cells[0] * _FINE) + 0.5) * (r1 - r0) / (cells[0] * _FINE)
    across = c0 + (np.arange(cells[1] * _FINE) + 0.5) * (c1 - c0) / (cells[1] * _FINE)
    return np.stack(np.meshgrid(down, across, indexing="ij"))


def _within(places: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    rows, columns = places
    inside: npt.NDArray[np.bool_] = (rows > 0) & (rows < shape[0]) & (columns > 0) & (columns < shape[1])
    return inside


def _cells(
    places: npt.NDArray[np.float64], area: tuple[float, ...], cells: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], ...]:
    """In which cell each place lies; the nearest when in none."""
    return tuple(
        np.clip(np.floor((along - first) / (last - first) * count), 0, count - 1).astype(np.intp)
        for along, first, last, count in zip(places, area[:2], area[2:], cells, strict=True)
    )


def _by_cell(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over each cell's squares."""
    down, across = values.shape[0] // _FINE, values.shape[1] // _FINE
    return np.asarray(values.reshape(down, _FINE, across, _FINE).mean(axis=(1, 3)))


def _cell_size(area: tuple[float, ...], cells: tuple[int, ...]) -> float:
    """Pixels that a cell covers."""
    return (area[2] - area[0]) * (area[3] - area[1]) / (cells[0] * cells[1])
