"""The phantom is what it says it is: the truth of later tests rests on it."""

from __future__ import annotations

import numpy as np
import pytest

from m3node.evaluation.phantom import SMALL, Phantom, abdomen_phantom


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return abdomen_phantom(seed=3)


def test_the_same_seed_gives_the_same_voxels_and_another_seed_others() -> None:
    first, again, other = (abdomen_phantom(seed=seed, **SMALL) for seed in (5, 5, 6))
    assert np.array_equal(first.hu, again.hu)
    assert not np.array_equal(first.hu, other.hu)


def test_the_liver_lies_on_the_patients_right_and_has_a_livers_size(phantom: Phantom) -> None:
    centre = phantom.geometry.to_patient(np.argwhere(phantom.liver.data).mean(axis=0) + phantom.liver.start)
    assert centre[0] < -30.0
    for seed in (1, 2, 3, 4):
        small = abdomen_phantom(seed=seed, **SMALL)
        litres = small.liver.count * small.geometry.voxel_volume_ml / 1000.0
        assert 1.1 < litres < 2.1


def test_five_lesions_of_8_to_40_mm_lie_in_the_liver_and_are_as_dark_as_they_say(phantom: Phantom) -> None:
    liver = phantom.liver.full()
    tissue = float(np.median(phantom.hu[liver]))
    assert 90.0 < tissue < 120.0
    assert len(phantom.lesions) == 5
    for lesion in phantom.lesions:
        assert 8.0 <= lesion.diameter_mm <= 41.6
        mask = lesion.mask.full()
        assert mask.any()
        assert liver[mask].all()
        assert 30.0 <= lesion.delta_hu <= 60.0
        core = float(np.median(phantom.hu[mask]))
        # Soft edges and slices of 2.5 mm brighten the smallest.
        assert tissue - lesion.delta_hu - 8.0 < core < tissue - 0.5 * lesion.delta_hu
        bounds = lesion.mask.extent
        assert bounds is not None
        across = [(b - a) * s for (a, b), s in zip(bounds[1:], phantom.geometry.spacing[1:], strict=True)]
        assert max(across) == pytest.approx(lesion.diameter_mm, rel=0.3)
        centre = phantom.geometry.to_voxel(lesion.centre_mm)
        assert all(a <= c < b for (a, b), c in zip(bounds, centre, strict=True))


def test_a_healthy_phantom_differs_only_at_the_lesions() -> None:
    sick, healthy = (abdomen_phantom(seed=7, healthy=flag, **SMALL) for flag in (False, True))
    assert healthy.lesions == ()
    near = np.zeros(sick.hu.shape, dtype=bool)
    for lesion in sick.lesions:
        bounds = lesion.mask.extent
        assert bounds is not None
        near[tuple(slice(max(a - 3, 0), b + 3) for a, b in bounds)] = True
    assert np.array_equal(sick.hu[~near], healthy.hu[~near])
    assert not np.array_equal(sick.hu, healthy.hu)


def test_noise_is_of_8_to_14_hu_and_correlated_between_neighbours(phantom: Phantom) -> None:
    # The liver's middle slice: medians see past its vessels and lesions.
    plane, liver = phantom.hu[45].astype(float), phantom.liver.on_slice(45)
    noise = _robust_sd(plane[liver])
    step = _robust_sd((plane[:, 1:] - plane[:, :-1])[liver[:, 1:] & liver[:, :-1]])
    assert 7.0 < noise < 16.0
    assert step < 0.85 * np.sqrt(2.0) * noise


def _robust_sd(values: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
