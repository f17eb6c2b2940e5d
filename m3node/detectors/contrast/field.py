"""How much darker or brighter than its own liver every place is.

A CT's liver is not one number: beam hardening and streaks make it tens of HU darker between ribs and spine. So each
place is compared with the liver around it, and with the spread that the liver shows there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from m3node.detectors.contrast.distance import eroded
from m3node.detectors.contrast.grid import ContrastGrid, FloatVolume
from m3node.imaging.mask import BoolArray

Coordinates = npt.NDArray[np.floating]

_SMOOTHINGS_MM = (1.0, 1.5, 2.0, 2.5)
_WANTED_SD_HU = 5.0
_TISSUE_BELOW_HU = 140.0
"""Softer than liver minus this is fat or air, brighter than liver plus this bone or a vessel in full contrast."""
_TISSUE_ABOVE_HU = 110.0
_FAT_HU = -10.0
_MIXED_MM = 2.0
"""So near to fat, air or bone a voxel's HU is a mixture."""
_BACKGROUND_MM = 25.0
_SPREAD_MM = 22.0
_MIN_SD_HU = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class ContrastField:
    """HU against the liver around.

    Attributes
    ----------
    darker : ndarray of float32
        HU below the liver around; negative where brighter.
    sd : ndarray of float32
        Spread of the liver around, HU, after smoothing.
    soft : ndarray of bool
        Where there is soft tissue: not fat, air or bone.
    core : ndarray of bool
        Soft tissue that is not mixed with the fat, air or bone beside it.
    liver_hu : float
        The parenchyma's median.
    """

    darker: FloatVolume
    sd: FloatVolume
    soft: BoolArray
    core: BoolArray
    liver_hu: float


def make_field(grid: ContrastGrid) -> ContrastField | None:
    """Compare every place with the liver around it; None when there is next to no parenchyma."""
    tissue = eroded(grid.parenchyma, 3.0, grid.spacing) & grid.envelope
    if np.count_nonzero(tissue) < 200:
        tissue = grid.parenchyma
    if np.count_nonzero(tissue) < 200:
        return None
    liver_hu = float(np.median(grid.hu[tissue]))
    soft = _soft(grid, liver_hu)
    unmixed = eroded(soft, _MIXED_MM, grid.spacing)
    # Bright vessels and noise peaks must not lift what lies beside them.
    clipped = np.clip(grid.hu, liver_hu - _TISSUE_BELOW_HU, liver_hu + 40.0)
    darker = clipped
    for sigma in _SMOOTHINGS_MM:
        darker = _below_background(grid, weighted_mean(clipped, soft, grid.radius(sigma)), tissue)
        if _robust_sd(darker[tissue]) <= _WANTED_SD_HU:
            break
    del clipped
    sd = _spread(grid, darker, tissue)
    return ContrastField(darker=darker, sd=sd, soft=soft, core=unmixed, liver_hu=liver_hu)


def _soft(grid: ContrastGrid, liver_hu: float) -> BoolArray:
    """Find soft tissue; a little smoothing keeps noise in fat from looking like specks of it."""
    calm = ndimage.gaussian_filter(grid.hu, grid.radius(0.8))
    soft = (calm > max(_FAT_HU, liver_hu - _TISSUE_BELOW_HU)) & (calm < liver_hu + _TISSUE_ABOVE_HU)
    return np.asarray(soft)


def _below_background(grid: ContrastGrid, smooth: FloatVolume, tissue: BoolArray) -> FloatVolume:
    background = _background(grid, smooth, tissue)
    background -= smooth
    return background


def _spread(grid: ContrastGrid, darker: FloatVolume, tissue: BoolArray) -> FloatVolume:
    """Estimate the healthy liver's spread everywhere, from what is left without its outliers."""
    overall = max(_MIN_SD_HU, _robust_sd(darker[tissue]))
    squares = np.clip(darker, -2.5 * overall, 2.5 * overall)
    squares *= squares
    local = weighted_mean(squares, tissue, grid.radius(_SPREAD_MM))
    np.sqrt(local, out=local)
    np.maximum(local, np.float32(0.8 * overall), out=local)
    return local


def weighted_mean(values: FloatVolume, where: BoolArray, sigma: Sequence[float]) -> FloatVolume:
    """Gaussian mean over the places of ``where`` only (normalised convolution)."""
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma, truncate=3.0)
    mean: FloatVolume = ndimage.gaussian_filter(np.where(where, values, np.float32(0.0)), sigma, truncate=3.0)
    alone = weight <= 1e-4
    mean /= np.maximum(weight, np.float32(1e-4), out=weight)
    np.copyto(mean, values, where=alone)
    return mean


def _background(grid: ContrastGrid, smooth: FloatVolume, tissue: BoolArray) -> FloatVolume:
    """Estimate the healthy liver's HU everywhere: a quadratic trend, then what is left of it on a scale of cm."""
    trend = _trend(grid, smooth, tissue)
    rest = smooth - trend
    for _ in range(2):
        spread = max(_MIN_SD_HU, _robust_sd(rest[tissue]))
        typical = tissue & (rest < 2.0 * spread) & (rest > -2.0 * spread)
        coarse = _coarse_mean(rest, typical, grid)
        rest -= coarse
        trend += coarse
        del coarse  # as large as the grid, and the next one is made beside what is left
    return trend


def _coarse_mean(values: FloatVolume, where: BoolArray, grid: ContrastGrid) -> FloatVolume:
    """Do as `weighted_mean` with a wide kernel, on every third place: nothing is lost on that scale."""
    step = tuple(max(1, int(5.0 / s)) for s in grid.spacing)
    every = tuple(slice(None, None, n) for n in step)
    sigma = [_BACKGROUND_MM / (s * n) for s, n in zip(grid.spacing, step, strict=True)]
    weight = ndimage.gaussian_filter(where[every].astype(np.float32), sigma, truncate=2.5)
    total = ndimage.gaussian_filter(np.where(where[every], values[every], np.float32(0.0)), sigma, truncate=2.5)
    # Where there is hardly any liver around, the trend alone stands.
    out: FloatVolume = np.asarray(total / (weight + np.float32(0.02)), dtype=np.float32)
    for axis, (size, n) in enumerate(zip(values.shape, step, strict=True)):
        out = _stretched(out, size, n, axis)
    return out


def _stretched(values: FloatVolume, size: int, step: int, axis: int) -> FloatVolume:
    """Interpolate linearly along an axis of which every ``step``-th place is known."""
    at = np.arange(size, dtype=np.float32) / step
    low = np.minimum(at.astype(int), values.shape[axis] - 1)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = size
    share = (at - low).reshape(shape).astype(np.float32)
    out: FloatVolume = np.take(values, low, axis)
    out *= 1 - share
    beyond = np.take(values, high, axis)
    beyond *= share
    out += beyond
    return out


def _trend(grid: ContrastGrid, smooth: FloatVolume, tissue: BoolArray) -> FloatVolume:
    """Fit a quadratic in patient millimetres to the parenchyma, twice, the second time without its outliers."""
    chosen = np.flatnonzero(tissue)
    chosen = chosen[:: max(1, chosen.size // 20_000)]
    values = smooth.ravel()[chosen].astype(np.float64)
    middle = np.array([n / 2 for n in tissue.shape])
    places = (np.stack(np.unravel_index(chosen, tissue.shape)).T - middle) * np.asarray(grid.spacing) / 100.0
    design = _quadratic(places[:, 0], places[:, 1], places[:, 2])
    keep = np.ones(values.size, dtype=np.bool_)
    coefficients: Coordinates = np.zeros(design.shape[1])
    for _ in range(4):
        coefficients = np.linalg.lstsq(design[keep], values[keep], rcond=None)[0]
        rest = values - design @ coefficients
        keep = np.abs(rest - np.median(rest)) < 2.0 * max(_MIN_SD_HU, _robust_sd(rest))
    k, r, c = (
        ((np.arange(n) - m) * s / 100.0).astype(np.float32)
        for n, m, s in zip(tissue.shape, middle, grid.spacing, strict=True)
    )
    terms = _quadratic_terms(k[:, None, None], r[None, :, None], c[None, None, :])
    out = np.zeros(tissue.shape, dtype=np.float32)
    for coefficient, term in zip(coefficients, terms, strict=True):
        out += np.float32(coefficient) * term
    return out


def _quadratic(k: Coordinates, r: Coordinates, c: Coordinates) -> Coordinates:
    return np.stack([np.broadcast_to(term, k.shape) for term in _quadratic_terms(k, r, c)], axis=1)


def _quadratic_terms(k: Coordinates, r: Coordinates, c: Coordinates) -> list[Coordinates]:
    return [np.ones_like(k), k, r, c, k * r, k * c, r * c, k * k, r * r, c * c]


def _robust_sd(values: Coordinates) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
