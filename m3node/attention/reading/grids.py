"""From shares of attention to one grid over the image, and when a grid says nothing.

With ``A[t, l, h, j]`` the share of attention that image token ``j`` gets from head ``h`` of layer ``l`` at the query
that produced answer token ``t``, and ``w[l]`` the layers' weights, which add up to 1:

raw
    ``G[j] = Σ_l w[l] · mean_h mean_t A[t, l, h, j]``
gated
    ``G[j] = Σ_l w[l] · mean_h mean_t g[t, l, h] · A[t, l, h, j]``, where ``g[t, l, h]`` is the share that the same row
    pays to all tokens of the question's medical terms together. A row that looks at no term counts nothing.
gradcam
    ``G[j] = Σ_l w[l] · mean_h mean_t max(0, A[t, l, h, j] · ∂y/∂A[t, l, h, j])``, where ``y`` is the sum of the read
    tokens' log-probabilities.

Each is divided by its sum. `m3node.gemma.rollout` has the formula of rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FLAT = 0.95
"""A grid whose entropy is above this share of the largest possible one is flat."""

_Floats = npt.NDArray[np.float32]


def mean_grid(shares: _Floats, weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """Average rows into one map, not yet divided by its sum.

    Parameters
    ----------
    shares : ndarray, shape (answer tokens, layers, heads, tokens, tokens)
        ``A``, or what a mode makes of it.
    weights : sequence of float
        One a layer.

    Returns
    -------
    ndarray, shape (tokens, tokens)
    """
    by_layer = shares.mean(axis=(0, 2), dtype=np.float64)
    grid: npt.NDArray[np.float64] = np.tensordot(np.asarray(weights), by_layer, axes=1)
    return grid


def gated(shares: _Floats, words: _Floats) -> _Floats:
    """Weight each row by what it pays to the terms.

    Parameters
    ----------
    shares : ndarray, shape (answer tokens, layers, heads, tokens, tokens)
        ``A``.
    words : ndarray, shape (answer tokens, layers, heads, tokens of terms)
        Shares of attention that the same rows pay to each token of a term.
    """
    gates = words.sum(axis=-1, dtype=np.float32)
    weighted: _Floats = shares * gates[..., None, None]
    return weighted


def what_is_wrong(grid: npt.NDArray[np.float64]) -> str:
    """Say why a map cannot be used; empty when it can."""
    if not np.isfinite(grid).all():
        return "not finite"
    total = float(grid.sum())
    if total <= 0:
        return "zero"
    shares = grid[grid > 0] / total
    entropy = float(-(shares * np.log(shares)).sum())
    if entropy > FLAT * math.log(grid.size):  # which a single cell's, 0, is not
        return f"flat: its entropy is {entropy / math.log(grid.size):.3f} of the largest"
    return ""


def spread(grid: npt.NDArray[np.float64]) -> _Floats:
    """Divide a map by its sum; all cells alike where there is nothing to divide."""
    if not np.isfinite(grid).all() or grid.sum() <= 0:
        grid = np.ones_like(grid)
    shares: _Floats = (grid / grid.sum()).astype(np.float32)
    return shares
