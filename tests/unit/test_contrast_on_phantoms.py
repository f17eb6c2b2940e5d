"""The planted lesions of phantoms are found and healthy phantoms stay empty, with the liver that the node finds."""

from __future__ import annotations

import pytest

from detecting import find_lesions
from m3node.evaluation.matching import match
from m3node.evaluation.phantom import Phantom, abdomen_phantom
from m3node.imaging.volume import CTVolume

DEMO_SEED = 1
HELD_OUT_SEEDS = (9001, 9002)


def volume_of(phantom: Phantom) -> CTVolume:
    return CTVolume(hu=phantom.hu, geometry=phantom.geometry, sources=())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [DEMO_SEED, *HELD_OUT_SEEDS])
def test_at_least_four_of_five_lesions_are_found_with_at_most_one_false(seed: int) -> None:
    phantom = abdomen_phantom(seed=seed)
    lesions = find_lesions(volume_of(phantom))
    truth = [lesion.mask.extent for lesion in phantom.lesions if lesion.mask.extent is not None]
    result = match([lesion.mask.extent for lesion in lesions if lesion.mask.extent is not None], truth, iou=0.3)
    print(f"\nseed {seed}: {len(result.pairs)} of {len(truth)} found, {len(result.false)} false")
    for pair in result.pairs:
        lesion, true = lesions[pair.found], phantom.lesions[pair.truth]
        length = lesion.measurements.longest.length_mm
        print(f"  {true.diameter_mm:.0f} mm, {true.delta_hu:.0f} HU: {length:.0f} mm, box IoU {pair.iou:.2f}")
        if true.diameter_mm > 16:
            assert length == pytest.approx(true.diameter_mm, rel=0.35)
    assert len(result.pairs) >= 4
    assert len(result.false) <= 1


def test_slices_so_thick_that_a_part_is_a_single_place_are_looked_at() -> None:
    phantom = abdomen_phantom(seed=DEMO_SEED, shape=(12, 64, 64), spacing=(16.0, 6.0, 6.0))
    assert 1 <= len(find_lesions(volume_of(phantom))) <= len(phantom.lesions)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [DEMO_SEED, HELD_OUT_SEEDS[0]])
def test_a_healthy_phantom_gives_at_most_one_false_lesion(seed: int) -> None:
    lesions = find_lesions(volume_of(abdomen_phantom(seed=seed, healthy=True)))
    print(f"\nhealthy seed {seed}: {len(lesions)} false")
    assert len(lesions) <= 1
