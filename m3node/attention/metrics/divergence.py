"""How alike two grids are that lie over the same part of the same image; cells may be left out by both."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from m3node.attention.metrics.cells import FloatArray, as_distribution

TOP_SHARE = 0.1
"""Share of the cells that `top_overlap` compares."""

_Grid = npt.NDArray[np.floating]


def jensen_shannon(p: _Grid, q: _Grid) -> float:
    """Jensen–Shannon divergence to the base 2: 0 for the same spread, 1 where no cell has something of both.

    Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37 (1991). Its square root is a
    distance; this is not.
    """
    first, second = _pair(p, q)
    middle = (first + second) / 2
    found = (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2
    return min(1.0, max(0.0, found))


def overlap(p: _Grid, q: _Grid) -> float:
    """Sum of the smaller of both in each cell, 0…1: what of their attention they spend alike."""
    first, second = _pair(p, q)
    return min(1.0, float(np.minimum(first, second).sum()))


def top_overlap(p: _Grid, q: _Grid, share: float = TOP_SHARE) -> float:
    """Intersection over union of both grids' largest cells, 0…1.

    The largest are a share of all cells, rounded up, and those that are as large as the last of them: in a flat grid,
    all. Cells with nothing are never among them.
    """
    first, second = (_largest(shares, share) for shares in _pair(p, q))
    return float(np.sum(first & second) / np.sum(first | second))


def pearson(p: _Grid, q: _Grid) -> float | None:
    """Correlation of the cells, −1…1; None where all cells of one are alike."""
    return _correlation(*_pair(p, q))


def spearman(p: _Grid, q: _Grid) -> float | None:
    """Correlation of the cells' ranks, −1…1, cells that are alike sharing theirs; None where all of one are alike."""
    first, second = _pair(p, q)
    return _correlation(rankdata(first), rankdata(second))


def _pair(p: _Grid, q: _Grid) -> tuple[FloatArray, FloatArray]:
    if p.shape != q.shape:
        raise ValueError(f"grids of {p.shape} and {q.shape} cells cannot be compared")
    return as_distribution(p).ravel(), as_distribution(q).ravel()


def _relative_entropy(p: FloatArray, q: FloatArray) -> float:
    """Kullback–Leibler divergence to the base 2; ``q`` is above 0 wherever ``p`` is."""
    some = p > 0
    return float(np.sum(p[some] * np.log2(p[some] / q[some])))


def _largest(shares: FloatArray, share: float) -> npt.NDArray[np.bool_]:
    count = max(1, math.ceil(shares.size * share - 1e-9))  # 70 · 0.1 is a little more than 7 in binary
    return np.asarray((shares >= np.partition(shares, -count)[-count]) & (shares > 0))


def _correlation(first: FloatArray, second: FloatArray) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    first, second = first - first.mean(), second - second.mean()
    found = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return min(1.0, max(-1.0, found))
