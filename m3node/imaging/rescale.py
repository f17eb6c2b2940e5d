"""Stored values to Hounsfield units, one slice at a time, in place where the stored values fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from m3node.imaging.volume import HUArray

_LOWEST, _HIGHEST = -32768, 32767

Stored = npt.NDArray[np.integer[Any]]


def write_hu(
    stored: Stored, slope: float, intercept: float, out: HUArray, *, bounds: tuple[int, int] | None = None
) -> None:
    """Write ``slope * stored + intercept`` (PS3.3 C.11.1.1.2) as int16.

    Fractions are rounded to the nearest integer, halves to the even one; what int16 cannot hold is clipped to its
    ends. Pixel Padding Values are rescaled like every other value: outside the reconstructed circle there is no HU, and
    what stands there, often -2000 or lower, is below air.

    Parameters
    ----------
    stored : ndarray of int, shape (rows, columns)
        Stored values, sign and unused bits already put right; may share ``out``'s memory if it has 16 bits.
    slope, intercept : float
        Rescale Slope and Rescale Intercept of this slice or frame.
    out : ndarray of int16, same shape
        Where to.
    bounds : tuple of int, optional
        No stored value is below or above these; looked up in ``stored`` where nobody knows.
    """
    if slope == 1.0 and intercept == int(intercept) and stored.dtype.itemsize == 2:
        shift = int(intercept)
        lowest, highest = bounds or (int(stored.min()), int(stored.max()))
        if lowest + shift < _LOWEST or highest + shift > _HIGHEST:
            lowest, highest = int(stored.min()), int(stored.max())
        if lowest + shift >= _LOWEST and highest + shift <= _HIGHEST:
            # The sum fits int16, so arithmetic modulo 65536 gives it for signed and unsigned values alike.
            np.add(stored.view(np.uint16), np.uint16(shift % 65536), out=out.view(np.uint16))
            return
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    np.rint(values, out=values)
    np.clip(values, _LOWEST, _HIGHEST, out=values)
    out[...] = values


def bounds_of(bits_stored: int, *, signed: bool) -> tuple[int, int]:
    """Return the least and the greatest value that so many bits hold."""
    return (-(1 << (bits_stored - 1)), (1 << (bits_stored - 1)) - 1) if signed else (0, (1 << bits_stored) - 1)


def unpack_bits(plane: npt.NDArray[np.uint16], *, bits_stored: int, high_bit: int, signed: bool) -> Stored:
    """Put unused bits right, in place (PS3.5 8.1.1): old files keep overlays there, and the sign ends at the high bit.

    Parameters
    ----------
    plane : ndarray of uint16
        Cells as they lie in the file, native byte order; changed.
    bits_stored, high_bit : int
        Of the Image Pixel module.
    signed : bool
        Pixel Representation 1.

    Returns
    -------
    ndarray of int16 or uint16
        A view of ``plane`` with its stored values.
    """
    cells = plane.view(np.int16) if signed else plane
    above, unused = 15 - high_bit, 16 - bits_stored
    if above == unused and _are_clean(cells, bits_stored, signed=signed):
        return cells
    if above:
        np.left_shift(cells, above, out=cells)
    if unused:
        np.right_shift(cells, unused, out=cells)
    return cells


def _are_clean(cells: Stored, bits_stored: int, *, signed: bool) -> bool:
    """Whether unused bits hold zeros, or copies of the sign, as nearly everybody writes them: looking is cheap."""
    if not signed:
        return bool(cells.max() < 1 << bits_stored)
    half = 1 << (bits_stored - 1)
    return bool(cells.max() < half and cells.min() >= -half)
