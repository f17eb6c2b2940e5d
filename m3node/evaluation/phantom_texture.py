"""What a scanner adds to smooth organs: its pixels and its grain; the same for 2-D and 3-D phantoms."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from m3node.evaluation.soft_shapes import Float32Array


def halved(axis: Float32Array) -> Float32Array:
    """Return the coordinates of a grid of half the resolution that covers the same pixels."""
    pairs = axis[: axis.size // 2 * 2].reshape(-1, 2).mean(axis=1)
    return np.asarray(pairs, dtype=np.float32)


def enlarged_plane(values: Float32Array, plane: tuple[int, int]) -> Float32Array:
    """Bring a plane that was painted at lower resolution to full resolution."""
    if values.shape == plane:
        return values
    factors = (plane[0] / values.shape[0], plane[1] / values.shape[1])
    # grid_mode: both grids cover the same area, voxel edges on voxel edges.
    large = ndimage.zoom(values, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(large, dtype=np.float32)


def grain(plane: tuple[int, int], rng: np.random.Generator) -> Float32Array:
    """Draw noise of standard deviation 1 that is correlated over about two pixels."""
    white = rng.standard_normal(plane, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, 0.8, mode="wrap", truncate=3.0)
    return np.asarray(fine / fine.std(), dtype=np.float32)
