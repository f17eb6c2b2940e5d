"""2-D phantoms: drawn by seed, within the distribution that the documentation states, and true to themselves."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy import ndimage

from m3node.evaluation.phantom_slices import (
    SIDE,
    SlicePhantom,
    draw_anatomies,
    draw_slice,
    phantom_and_twin,
    slice_phantom,
)

SEEDS = range(24)


@functools.cache
def phantoms() -> tuple[SlicePhantom, ...]:
    return tuple(slice_phantom(seed) for seed in SEEDS)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    again = slice_phantom(3)
    assert np.array_equal(again.hu, phantoms()[3].hu)
    assert [lesion.box for lesion in again.lesions] == [lesion.box for lesion in phantoms()[3].lesions]
    assert not np.array_equal(phantoms()[3].hu, phantoms()[4].hu)


def test_slices_are_as_the_documentation_says() -> None:
    for phantom in phantoms():
        assert phantom.hu.shape == phantom.liver.shape == (SIDE, SIDE)
        assert phantom.hu.dtype == np.int16
        assert phantom.spacing[0] == phantom.spacing[1]
        assert 0.6 <= phantom.spacing[0] <= 1.0
        # 15 cm², counted at half the resolution.
        assert np.count_nonzero(phantom.liver) * phantom.spacing[0] ** 2 > 0.9 * 1500.0
        assert len(phantom.lesions) <= 3
        for lesion in phantom.lesions:
            assert 8.0 <= lesion.diameter_mm <= 40.0
            assert 30.0 <= lesion.delta_hu <= 65.0
    assert {len(phantom.lesions) for phantom in phantoms()} >= {0, 1, 2}


def test_a_lesions_box_bounds_its_mask_which_lies_in_the_liver_and_is_as_large_as_said() -> None:
    seen = 0
    # Of the last one, a lesion reaches beyond the liver.
    for phantom in (*phantoms(), slice_phantom(47)):
        for lesion in phantom.lesions:
            r0, c0, r1, c1 = lesion.box
            assert ndimage.find_objects(lesion.mask.astype(int))[0] == (slice(r0, r1), slice(c0, c1))
            assert not np.any(lesion.mask & ~phantom.liver)
            # Of the circle of equal area: the other axis is 75 to 100 %, the outline bumpy.
            across_mm = 2.0 * math.sqrt(np.count_nonzero(lesion.mask) / math.pi) * phantom.spacing[0]
            assert 0.82 < across_mm / lesion.diameter_mm < 1.04
            seen += 1
    assert seen >= 12


def test_lesions_are_darker_than_the_liver_by_what_is_said() -> None:
    for phantom in phantoms():
        for lesion in phantom.lesions:
            core = ndimage.binary_erosion(lesion.mask, iterations=4)
            if np.count_nonzero(core) < 60:
                continue
            ring = ndimage.binary_dilation(lesion.mask, iterations=14)
            ring &= ~ndimage.binary_dilation(lesion.mask, iterations=6) & phantom.liver
            for other in phantom.lesions:
                ring &= ~ndimage.binary_dilation(other.mask, iterations=6)
            # Vessels are brighter than the liver, shading moves both: medians, and 15 HU of leeway.
            depth = float(np.median(phantom.hu[ring]) - np.median(phantom.hu[core]))
            assert depth == pytest.approx(lesion.delta_hu, abs=15.0)


def test_the_noise_is_as_the_documentation_says() -> None:
    (ground,) = draw_anatomies(np.random.default_rng(5), heights=1)
    one, other, again, third = (
        draw_slice(ground, 0, np.random.default_rng(0), np.random.default_rng(seed)).hu.astype(float)
        for seed in (1, 2, 1, 3)
    )
    assert np.array_equal(one, again)
    inside = (slice(100, 400), slice(100, 400))
    for a, b in ((one, other), (one, third), (other, third)):
        # Nothing else differs; of two noises of 7 to 15 HU.
        assert 7.0 - 0.5 < np.std((a - b)[inside]) / math.sqrt(2.0) < 15.0 + 0.5


def test_the_painted_over_twin_differs_only_around_the_lesions() -> None:
    seed = next(seed for seed in SEEDS if phantoms()[seed].lesions)
    ill, healthy = phantom_and_twin(seed)
    assert np.array_equal(ill.hu, phantoms()[seed].hu)
    assert healthy.lesions == ()
    assert np.array_equal(ill.liver, healthy.liver)
    around = np.zeros(ill.liver.shape, dtype=bool)
    for lesion in ill.lesions:
        around |= ndimage.binary_dilation(lesion.mask, iterations=round(6.0 / ill.spacing[0]))
        assert np.mean(ill.hu[lesion.mask]) < np.mean(healthy.hu[lesion.mask]) - 15.0
    assert np.array_equal(ill.hu[~around], healthy.hu[~around])


def test_more_lesions_than_there_is_room_for_are_left_out_and_never_overlap() -> None:
    grounds = draw_anatomies(np.random.default_rng(5), heights=3)
    widest = max(grounds, key=lambda ground: np.count_nonzero(ground.depth > 0))
    phantom = draw_slice(widest, 40, np.random.default_rng(6), np.random.default_rng(7))
    assert 3 < len(phantom.lesions) < 40
    assert np.max(np.sum([lesion.mask for lesion in phantom.lesions], axis=0)) == 1
