"""Lesions inserted into a real CT are found, with the liver region that the node finds by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from detecting import find_lesions
from liver_data import LIVER, received, whole_trunk
from m3node.evaluation.ct_writer import axial_geometry
from m3node.evaluation.insertion import random_insertions
from m3node.evaluation.matching import match
from m3node.imaging.mask import Extent
from m3node.imaging.nifti import read_nifti_mask
from m3node.imaging.volume import CTVolume
from m3node.m3.lesion import Lesion, MaskOrigin

HELD_OUT_SEEDS = range(7100, 7110)
"""Ten volumes of three lesions each; the rule was set on other seeds."""


def boxes(lesions: tuple[Lesion, ...]) -> list[Extent]:
    return [lesion.mask.extent for lesion in lesions if lesion.mask.extent is not None]


@pytest.fixture(scope="module")
def real(test_data: Path) -> CTVolume:
    return received(test_data / "ct_liver_j2k")


@pytest.mark.slow
def test_at_least_80_percent_of_30_inserted_lesions_are_found_with_at_most_one_false_each(
    real: CTVolume, test_data: Path
) -> None:
    liver = read_nifti_mask(test_data / "ct_liver_j2k.labels.nii.gz", real, LIVER)
    hit, planted, false = 0, 0, []
    for seed in HELD_OUT_SEEDS:
        changed = random_insertions(real.hu, real.geometry, liver, seed=seed)
        lesions = find_lesions(CTVolume(hu=changed.hu, geometry=real.geometry, sources=()))
        truth = [lesion.mask.extent for lesion in changed.lesions if lesion.mask.extent is not None]
        result = match(boxes(lesions), truth, iou=0.3)
        hit, planted = hit + len(result.pairs), planted + len(truth)
        false.append(len(result.false))
        for pair in result.pairs:
            lesion, true = lesions[pair.found], changed.lesions[pair.truth]
            assert lesion.mask_origin is MaskOrigin.DETECTOR
            assert lesion.measurements.hu_mean < lesion.measurements.hu_liver_mean - 10
            assert lesion.measurements.longest.length_mm < 2.0 * true.diameter_mm
    print(f"\ninserted lesions found: {hit} of {planted} = {hit / planted:.2f}; false per volume: {false}")
    assert planted == 30
    assert hit / planted >= 0.8
    assert max(false) <= 1


def test_the_unchanged_ct_gives_at_most_one_finding(real: CTVolume) -> None:
    lesions = find_lesions(real)
    print(f"\nfindings on the unchanged CT: {len(lesions)}")
    assert len(lesions) <= 1


@pytest.mark.parametrize("pixel_mm", [1.63, 1.4])
def test_larger_pixels_do_not_make_lesions_of_the_muscle_that_lies_on_the_liver(
    real: CTVolume, pixel_mm: float
) -> None:
    # Interpolation takes noise away, so a large field of view shows a contrast of muscle to liver as if it were sure.
    share = real.geometry.spacing[1] / pixel_mm
    hu = ndimage.zoom(real.hu.astype(np.float32), (1, share, share), order=1)
    geometry = axial_geometry(
        (hu.shape[0], hu.shape[1], hu.shape[2]),
        (real.geometry.spacing[0], pixel_mm, pixel_mm),
        origin=(-250.0, -437.0, 0.0),
    )
    assert find_lesions(CTVolume(hu=np.rint(hu).astype(np.int16), geometry=geometry, sources=())) == ()


def test_an_unenhanced_trunk_gives_at_most_one_finding(test_data: Path) -> None:
    lesions = find_lesions(whole_trunk(test_data))
    print(f"\nfindings on the unenhanced trunk: {[round(x.measurements.longest.length_mm) for x in lesions]} mm")
    assert len(lesions) <= 1
