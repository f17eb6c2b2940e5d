"""Stored values become HU: sign, unused bits, slope and intercept, rounding and clipping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.imaging.assemble import assemble
from m3node.imaging.rescale import unpack_bits, write_hu
from made_noise import noise_series
from made_stacks import manifest_of


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return noise_series(tmp_path / "ct")


def test_each_slice_has_its_own_rescale_and_fractions_are_rounded(series: Path) -> None:
    expected = []
    for number, path in enumerate(sorted(series.iterdir())):
        ds = pydicom.dcmread(path)
        ds.RescaleSlope, ds.RescaleIntercept = str(0.5 + number / 8), str(-1000.25 - number)
        ds.save_as(path)
        expected.append(np.rint(ds.pixel_array * (0.5 + number / 8) - 1000.25 - number))
    np.testing.assert_array_equal(assemble(manifest_of(series)).hu, expected)


@given(
    stored=st.lists(st.integers(-32768, 32767), min_size=1, max_size=20),
    signed=st.booleans(),
    slope=st.sampled_from([1.0, 2.0, 0.5, 2.0002442]),
    intercept=st.sampled_from([0.0, -1024.0, -4047.0, 1024.0, 0.5, 32767.0]),
)
def test_hu_is_the_rescaled_value_rounded_and_clipped(
    stored: list[int], signed: bool, slope: float, intercept: float
) -> None:
    cells = np.array([stored], dtype=np.int16)
    values: npt.NDArray[np.integer] = cells.copy() if signed else cells.copy().view(np.uint16)
    expected = np.clip(np.rint(values.astype(np.float64) * slope + intercept), -32768, 32767)
    out = values.view(np.int16)  # in place, as the volume is filled
    write_hu(values, slope, intercept, out)
    np.testing.assert_array_equal(out, expected)


@given(value=st.integers(-2048, 2047), junk=st.integers(0, 15), shift=st.integers(0, 4), signed=st.booleans())
def test_unused_bits_are_no_part_of_the_value(value: int, junk: int, shift: int, signed: bool) -> None:
    """12 bits stored at any high bit; overlays of old files in the others."""
    stored = value if signed else value + 2048
    cell = ((stored & 0xFFF) << shift) & 0xFFFF
    cell |= (junk << (12 + shift)) & 0xFFFF  # above
    cell |= junk & ((1 << shift) - 1)  # below
    plane = np.array([[cell]], dtype=np.uint16)
    found = unpack_bits(plane, bits_stored=12, high_bit=11 + shift, signed=signed)
    assert found[0, 0] == stored


def test_overlay_bits_in_a_file_do_not_reach_the_volume(series: Path) -> None:
    plain = assemble(manifest_of(series)).hu
    for path in series.iterdir():
        ds = pydicom.dcmread(path)
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0xF000).tobytes()
        ds.save_as(path)
    np.testing.assert_array_equal(assemble(manifest_of(series)).hu, plain)


@pytest.mark.parametrize("bits", [8, 32])
def test_cells_of_8_and_32_bits_are_read(series: Path, bits: int) -> None:
    expected = []
    for path in sorted(series.iterdir()):
        ds = pydicom.dcmread(path)
        values = ds.pixel_array % 200
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
        ds.PixelData = values.astype(f"<u{bits // 8}").tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(path)
        expected.append(values.astype(int) - 1024)
    np.testing.assert_array_equal(assemble(manifest_of(series)).hu, expected)
