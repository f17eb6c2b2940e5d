"""A CT slice is shown in the three published windows."""

from __future__ import annotations

import numpy as np
import pytest

from m3node.imaging.windows import WINDOWS, ct_windows


def test_the_windows_are_the_published_ones() -> None:
    assert WINDOWS == ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))


def test_every_hu_is_rounded_to_the_nearest_level() -> None:
    hu = np.arange(-2000, 3000, dtype=np.int16).reshape(50, 100)
    rgb = ct_windows(hu)
    assert (rgb.shape, rgb.dtype) == ((50, 100, 3), np.uint8)
    for channel, (low, high) in enumerate(WINDOWS):
        exact = (np.clip(hu.astype(float), low, high) - low) / (high - low) * 255
        np.testing.assert_array_equal(rgb[..., channel], np.rint(exact))


@pytest.mark.parametrize(
    ("hu", "colour"),
    [
        (-1024, [0, 0, 0]),
        (1024, [255, 255, 255]),
        (-135, [111, 0, 0]),
        (215, [154, 255, 255]),
        (0, [128, 98, 0]),
        (80, [137, 157, 255]),
        (40, [132, 128, 128]),
        (-32768, [0, 0, 0]),
        (32767, [255, 255, 255]),
    ],
)
def test_red_is_the_wide_window_green_soft_tissue_and_blue_the_narrow_one(hu: int, colour: list[int]) -> None:
    assert ct_windows(np.full((2, 3), hu, np.int16))[1, 2].tolist() == colour


def test_a_view_into_a_volume_is_shown_as_its_copy_is() -> None:
    volume = np.random.default_rng(0).integers(-1100, 1100, (3, 20, 30), dtype=np.int16)
    crop = volume[1, 4:9, 20:2:-1]
    np.testing.assert_array_equal(ct_windows(crop), ct_windows(crop.copy()))
