"""Stored values to greys, as PS3.3 C.11 has them shown: modality LUT, VOI LUT or window, inversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from m3node.intake.series.elements import decimals, item, text, unsigned

Stored = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

PERCENTILES = (0.5, 99.5)
"""What is black and white where the file has no window; padding does not count."""

TAGS = (
    0x00280004,  # Photometric Interpretation
    0x00280103,  # Pixel Representation
    0x00280120,  # Pixel Padding Value
    0x00280121,  # Pixel Padding Range Limit
    0x00281050,  # Window Center
    0x00281051,  # Window Width
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x00281056,  # VOI LUT Function
    0x00283000,  # Modality LUT Sequence
    0x00283010,  # VOI LUT Sequence
    0x20500020,  # Presentation LUT Shape
)

_MODALITY_TABLE, _VOI_TABLE = 0x00283000, 0x00283010
_DESCRIPTOR, _DATA = 0x00283002, 0x00283006
_NARROWEST = 1e-6
"""Narrower windows are no windows."""

_BAND = 1 << 20
"""Pixels that are looked up together: an index of eight bytes for every pixel would be the most memory of all."""


@dataclass(frozen=True, slots=True, eq=False)
class _Levels:
    """Every value that an image may hold: looking up a pixel's is faster, and smaller, than computing it.

    Attributes
    ----------
    values : ndarray of int
        Stored values, rising.
    counts : ndarray of int
        Pixels that have them.
    """

    values: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, stored: Stored) -> _Levels:
        if stored.dtype.itemsize > 2:
            values, counts = np.unique(stored, return_counts=True)
            return cls(values.astype(np.int64), counts.astype(np.int64))
        low, high = int(stored.min()), int(stored.max())
        counts = np.zeros(high - low + 1, dtype=np.int64)
        for band in _bands(stored):
            counts += np.bincount(band.astype(np.int64) - low, minlength=counts.size)
        return cls(np.arange(low, high + 1, dtype=np.int64), counts)

    def look_up(self, stored: Stored, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Give each pixel its value's entry of a table that has one for each of ``values``."""
        out = np.empty(stored.size, dtype=table.dtype)
        done = 0
        dense = stored.dtype.itemsize <= 2
        for band in _bands(stored):
            index = band.astype(np.int64) - self.values[0] if dense else np.searchsorted(self.values, band)
            out[done : done + band.size] = table[index]
            done += band.size
        return out.reshape(stored.shape)


def _bands(stored: Stored) -> list[Stored]:
    flat = stored.reshape(-1)
    return [flat[first : first + _BAND] for first in range(0, flat.size, _BAND)]


def shown_greys(stored: Stored, ds: Dataset, *, little_endian: bool = True) -> npt.NDArray[np.uint8]:
    """Bring a monochrome image to the greys that a viewer shows first.

    1. Modality LUT, or Rescale Slope and Intercept.
    2. The first VOI LUT where there is one, else the first window by its VOI LUT Function, else the `PERCENTILES`;
       these, too, where LUT or window would leave one grey of many.
    3. Inverted where Presentation LUT Shape says INVERSE; where it says nothing, where Photometric Interpretation is
       MONOCHROME1. (In DX both go together, and mean one inversion: PS3.3 C.8.11.3.1.2.)
    4. Padding is black.

    Burnt-in text stays; overlays are not drawn.

    Parameters
    ----------
    stored : ndarray of int, shape (rows, columns)
        Stored values.
    ds : Dataset
        Has the `TAGS` that the file has.
    little_endian : bool
        Byte order of the file.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
    """
    levels = _Levels.of(stored)
    padding = _padding(levels.values, ds, little_endian)
    seen = (levels.counts > 0) & ~padding
    if not seen.any():
        seen = levels.counts > 0
    values = modality_values(levels.values, ds, little_endian=little_endian)
    share = _by_table(values, ds, little_endian)
    if share is None:
        share = _by_window(values, ds)
    if share is None or (np.ptp(share[seen]) == 0 and np.ptp(values[seen]) > 0):
        share = _by_percentiles(values, np.where(seen, levels.counts, 0))
    if _inverted(ds):
        share = 1.0 - share
    share[padding] = 0.0
    return levels.look_up(stored, np.rint(255.0 * share).astype(np.uint8))


def modality_values(stored: npt.NDArray[np.int64], ds: Dataset, *, little_endian: bool = True) -> Floats:
    """Apply Modality LUT, or Rescale Slope and Intercept (PS3.3 C.11.1); without either, values stay."""
    table = _read_table(ds, _MODALITY_TABLE, signed=_signed(ds, little_endian), little_endian=little_endian)
    if table is not None:
        return table.look_up(stored)
    slope, intercept = decimals(ds, 0x00281053, 1), decimals(ds, 0x00281052, 1)
    values = stored.astype(np.float64)
    if not slope or not intercept or slope[0] == 0:
        return values
    with np.errstate(over="ignore"):
        found = np.asarray(values * slope[0] + intercept[0])
    return found if np.isfinite(found).all() else values


def rescaled(stored: Stored, slope: float, intercept: float) -> npt.NDArray[np.float32]:
    """Return ``slope * stored + intercept``, within what 16 bits hold, as volumes are."""
    levels = _Levels.of(stored)
    with np.errstate(over="ignore"):
        table = levels.values.astype(np.float64) * slope + intercept
    return levels.look_up(stored, np.clip(table, -32768.0, 32767.0).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    first: int
    entries: npt.NDArray[np.uint16]
    bits: int

    def look_up(self, values: npt.NDArray[Any]) -> Floats:
        index = np.clip(np.rint(values) - self.first, 0, self.entries.size - 1).astype(np.int64)
        return np.asarray(self.entries[index], dtype=np.float64)


def _read_table(ds: Dataset, sequence: int, *, signed: bool, little_endian: bool) -> _Table | None:
    """Read the first LUT of a sequence; None when there is none, or one that cannot be read as one."""
    lut = item(ds, sequence)
    if lut is None:
        return None
    descriptor = _numbers(lut, _DESCRIPTOR, little_endian)
    entries = _numbers(lut, _DATA, little_endian)
    if descriptor is None or entries is None or descriptor.size < 3:
        return None
    count = int(descriptor[0]) or 1 << 16
    if entries.size <= (count + 1) // 2:  # two entries of 8 bits in each word
        entries = entries.astype("<u2" if little_endian else ">u2").view(np.uint8).astype(np.uint16)
    entries = entries[:count]
    if entries.size < min(count, 2):
        return None
    first = int(descriptor[1])
    # The depth that the descriptor gives is often not the entries': these show how many bits they need.
    bits = max(8, int(entries.max()).bit_length())
    return _Table(first - 65536 if signed and first > 32767 else first, entries, bits)


def _numbers(ds: Dataset, tag: int, little_endian: bool) -> npt.NDArray[np.uint16] | None:
    """Read 16-bit numbers whatever VR they were given."""
    value = ds.get_item(tag).value if tag in ds else None
    if isinstance(value, bytes):
        return np.frombuffer(value[: len(value) // 2 * 2], "<u2" if little_endian else ">u2").astype(np.uint16)
    if isinstance(value, int):
        value = [value]
    if value is None or isinstance(value, str) or not all(isinstance(one, int) for one in value):
        return None
    return (np.array(list(value), dtype=np.int64) % 65536).astype(np.uint16)


def _by_table(values: Floats, ds: Dataset, little_endian: bool) -> Floats | None:
    table = _read_table(ds, _VOI_TABLE, signed=bool(values.min() < 0), little_endian=little_endian)
    return None if table is None else table.look_up(values) / float((1 << table.bits) - 1)


def _by_window(values: Floats, ds: Dataset) -> Floats | None:
    """Apply the first window (PS3.3 C.11.2.1.2, C.11.2.1.3); None when there is none of a width that can be."""
    centres, widths = decimals(ds, 0x00281050, 1), decimals(ds, 0x00281051, 1)
    function = text(ds, 0x00281056).upper()
    if centres is None or widths is None:
        return None
    offsets, width = values - centres[0], widths[0]
    if function == "SIGMOID" and width >= _NARROWEST:
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * offsets / width, -700.0, 700.0))))
    if function == "LINEAR_EXACT" and width >= _NARROWEST:
        return np.asarray(np.clip(offsets / width + 0.5, 0.0, 1.0))
    if width == 1:
        return np.where(offsets > -0.5, 1.0, 0.0)
    if width > 1:
        return np.asarray(np.clip((offsets + 0.5) / (width - 1.0) + 0.5, 0.0, 1.0))
    return None


def _by_percentiles(values: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    low, high = (
        values[order][np.searchsorted(below, max(1.0, percent / 100.0 * below[-1]))] for percent in PERCENTILES
    )
    if high <= low:  # nearly all pixels alike: what little differs decides
        used = values[counts > 0]
        low, high = used.min(), used.max()
    return np.asarray(np.clip((values - low) / max(float(high - low), 1e-12), 0.0, 1.0))


def _inverted(ds: Dataset) -> bool:
    shape = text(ds, 0x20500020).upper()
    return shape == "INVERSE" if shape else text(ds, 0x00280004).upper() == "MONOCHROME1"


def _padding(values: npt.NDArray[np.int64], ds: Dataset, little_endian: bool) -> npt.NDArray[np.bool_]:
    """Which stored values are padding (PS3.3 C.7.5.1.1.2)."""
    ends = [unsigned(ds, tag, little_endian=little_endian) for tag in (0x00280120, 0x00280121)]
    if _signed(ds, little_endian):
        ends = [end - 65536 if end is not None and end > 32767 else end for end in ends]
    value, limit = ends
    if value is None:
        return np.zeros(values.shape, dtype=np.bool_)
    low, high = sorted((value, value if limit is None else limit))
    return (values >= low) & (values <= high)


def _signed(ds: Dataset, little_endian: bool) -> bool:
    return unsigned(ds, 0x00280103, little_endian=little_endian) == 1
