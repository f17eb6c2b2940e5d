"""Stored values become greys by the formulas of PS3.3 C.11."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydicom.dataset import Dataset

from m3node.attention.images.display import shown_greys


def header(**attributes: Any) -> Dataset:
    ds = Dataset()
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.add_new("PixelRepresentation", "US", 1)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def greys(values: list[int], dtype: str = "i2", **attributes: Any) -> list[int]:
    return list(map(int, shown_greys(np.array([values], dtype=dtype), header(**attributes))[0]))


@pytest.mark.parametrize(
    ("function", "centre", "width", "values", "shown"),
    [
        # The examples of C.11.2.1.2.1 and C.11.2.1.3.2: where black ends, the middle, where white begins.
        ("LINEAR", 2048, 4096, [-1, 0, 2047, 4095, 4096], [0, 0, 127, 255, 255]),
        ("LINEAR", 2048, 1, [2000, 2047, 2048, 2099], [0, 0, 255, 255]),
        ("LINEAR", 0, 100, [-51, -50, 49, 50], [0, 0, 255, 255]),
        ("LINEAR", 0, 1, [-1, 0], [0, 255]),
        ("LINEAR", 2, 4, [-1, 0, 1, 2, 3, 4], [0, 0, 85, 170, 255, 255]),
        ("", 2, 4, [-1, 0, 1, 2, 3, 4], [0, 0, 85, 170, 255, 255]),
        ("LINEAR_EXACT", 2, 4, [-1, 0, 1, 2, 3, 4], [0, 0, 64, 128, 191, 255]),
        ("LINEAR_EXACT", 2, 1, [1, 2, 3], [0, 128, 255]),
        ("SIGMOID", 2, 4, [0, 2, 4], [30, 128, 225]),
    ],
)
def test_windows(function: str, centre: float, width: float, values: list[int], shown: list[int]) -> None:
    assert greys(values, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function) == shown


def test_of_several_windows_the_first_counts() -> None:
    assert greys([0, 10, 20], WindowCenter=[10.5, 0], WindowWidth=[21, 5]) == [0, 128, 255]


def test_rescaling_comes_first_and_may_turn_values_round() -> None:
    assert greys([0, 10, 20], RescaleSlope=-2, RescaleIntercept=40, WindowCenter=20.5, WindowWidth=41) == [255, 128, 0]


def table(entries: list[int], first: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [len(entries), first, 16])
    item.add_new("LUTData", "OW", np.array(entries, dtype="<u2").tobytes())
    return item


def test_a_modality_table_starts_where_it_says_and_its_ends_go_on() -> None:
    modality = table([100, 50, 0], first=-1)
    assert greys([-9, -1, 0, 1, 9], ModalityLUTSequence=[modality], WindowCenter=50.5, WindowWidth=101) == [
        255,
        255,
        128,
        0,
        0,
    ]


def test_a_voi_table_goes_before_a_window() -> None:
    voi = table([65535, 0, 65535], first=-1)
    assert greys([-5, -1, 0, 1, 5], VOILUTSequence=[voi], WindowCenter=0, WindowWidth=11) == [255, 255, 0, 255, 255]


def test_what_is_one_grey_stays_one() -> None:
    assert greys([7, 7, 7]) == [0, 0, 0]
    assert greys([7, 7, 7], WindowCenter=7, WindowWidth=15) == [137, 137, 137]


@given(npst.arrays(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4"]), (5, 9)), st.booleans())
def test_brighter_is_more_and_inverted_less(stored: np.ndarray, inverted: bool) -> None:
    ds = header(PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2")
    shown = shown_greys(stored, ds).ravel()
    along = shown[np.argsort(stored.ravel(), kind="stable")].astype(int)
    assert (np.diff(-along if inverted else along) >= 0).all()
    if stored.min() < stored.max():
        assert (shown.min(), shown.max()) == (0, 255)
