"""The embedded segmentation finds real livers, and none where none is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from liver_data import (
    arranged,
    cropped,
    dice,
    enhanced,
    liver_under_heart,
    rearranged,
    received,
    stack,
    thighs,
    thorax,
    unenhanced,
    whole_trunk,
    with_hu,
    with_lesions,
)
from m3node.evaluation.ct_writer import write_ct_series
from m3node.evaluation.phantom import SMALL, abdomen_phantom
from m3node.imaging.volume import CTVolume
from m3node.liver.embedded import segment_liver
from m3node.liver.envelope import make_envelope
from m3node.settings import LiverSettings


def test_enhanced_liver_has_dice_of_090_and_its_envelope_holds_098(test_data: Path) -> None:
    volume, truth = enhanced(test_data)
    found = segment_liver(volume)
    assert found is not None
    envelope = make_envelope(found, volume.geometry, LiverSettings()).full()
    held = float((envelope & truth).sum() / truth.sum())
    print(f"\nct_liver_j2k: Dice {dice(found, truth):.3f}, envelope holds {held:.4f} of the label")
    assert dice(found, truth) >= 0.90
    assert held >= 0.98


def test_unenhanced_liver_written_as_dicom_has_dice_of_088(test_data: Path, tmp_path: Path) -> None:
    nifti, truth = unenhanced(test_data)
    write_ct_series(tmp_path, nifti.hu, nifti.geometry, seed="example_ct_sm")
    volume = received(tmp_path)
    assert np.allclose(volume.geometry.affine, nifti.geometry.affine, atol=1e-3)
    found = segment_liver(volume)
    print(f"\nexample_ct_sm: Dice {dice(found, truth):.3f}")
    assert dice(found, truth) >= 0.88


def test_whole_trunk_has_the_liver_that_its_upper_part_alone_has(test_data: Path) -> None:
    volume = whole_trunk(test_data)
    found, upper = segment_liver(volume), segment_liver(cropped(volume, 64, 112))
    assert found is not None
    assert upper is not None
    millilitres = found.count * volume.geometry.voxel_volume_ml
    print(
        f"\nexample_ct: {millilitres:.0f} ml; Dice with its upper 48 slices alone {dice(upper, found.full()[64:]):.3f}"
    )
    assert 900 < millilitres < 1600
    assert dice(upper, found.full()[64:]) >= 0.95


def test_dome_beside_the_heart_is_liver_and_the_heart_is_not(test_data: Path) -> None:
    masks = test_data / "ct_liver_3slice_seg"
    liver, heart = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(masks / name))) > 0
        for name in ("liver_seg.nrrd", "heart_seg.nrrd")
    )
    found = segment_liver(stack(test_data / "ct_liver_3slice"))
    assert found is not None
    leaked = float((found.full() & heart).sum() / heart.sum())
    print(f"\nct_liver_3slice: Dice {dice(found, liver):.3f}, {leaked:.3f} of the heart in it")
    assert dice(found, liver) >= 0.88
    assert leaked <= 0.02


@pytest.mark.parametrize(
    ("liver_hu", "heart_hu", "apart_mm"),
    [(50, 42, 0.0), (60, 38, 0.0), (110, 130, 0.0), (110, 170, 0.0), (45, 45, 5.0)],
)
def test_a_heart_on_the_left_lobe_is_cut_off(liver_hu: float, heart_hu: float, apart_mm: float) -> None:
    volume, liver, heart = liver_under_heart(liver_hu, heart_hu, apart_mm=apart_mm)
    found = segment_liver(volume)
    assert found is not None
    leaked = float((found.full() & heart).sum() / heart.sum())
    print(f"\nliver {liver_hu}, heart {heart_hu} HU: Dice {dice(found, liver):.3f}, {leaked:.3f} of the heart in it")
    assert dice(found, liver) >= 0.90
    assert leaked <= 0.10


def test_tilted_head_has_no_liver(test_data: Path) -> None:
    assert segment_liver(stack(test_data / "ct_head_tilted")) is None


def test_thorax_has_no_liver() -> None:
    assert segment_liver(thorax()) is None


def test_thighs_have_no_liver() -> None:
    assert segment_liver(thighs()) is None


@pytest.mark.parametrize(("first", "last"), [(0, 35), (8, 43), (16, 51), (24, 59), (32, 67), (24, 40)])
def test_pelvis_and_lower_abdomen_have_no_liver(test_data: Path, first: int, last: int) -> None:
    assert segment_liver(cropped(whole_trunk(test_data), first, last)) is None


@pytest.mark.parametrize(
    ("order", "flips"),
    [
        ((0, 1, 2), (True, False, False)),
        ((0, 1, 2), (True, True, True)),
        ((0, 2, 1), (False, False, True)),
        ((0, 2, 1), (False, True, False)),
    ],
    ids=["feet first", "reversed", "turned 90°", "turned 270°"],
)
def test_the_same_patient_stored_otherwise_has_the_same_liver(
    test_data: Path, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    volume, _ = unenhanced(test_data)
    found = segment_liver(volume)
    other = segment_liver(rearranged(volume, order, flips))
    assert found is not None
    assert other is not None
    assert np.array_equal(other.full(), arranged(found.full(), order, flips))


@pytest.mark.parametrize("sd", [10, 25])
@pytest.mark.parametrize("offset", [-15, 15])
def test_noise_and_another_phase_do_not_lose_the_liver(test_data: Path, sd: int, offset: int) -> None:
    rng = np.random.default_rng(7)
    for name, (volume, truth) in {"enhanced": enhanced(test_data), "unenhanced": unenhanced(test_data)}.items():
        found = segment_liver(with_hu(volume, volume.hu + offset + rng.normal(0, sd, volume.hu.shape)))
        print(f"\n{name}, noise {sd} HU, offset {offset} HU: Dice {dice(found, truth):.3f}")
        assert dice(found, truth) >= 0.90


@pytest.mark.parametrize(("first", "last"), [(0, 10), (5, 15), (12, 20)])
def test_a_thinner_slab_still_has_its_part_of_the_liver(test_data: Path, first: int, last: int) -> None:
    volume, truth = enhanced(test_data)
    found = segment_liver(cropped(volume, first, last))
    print(f"\nslices {first} to {last}: Dice {dice(found, truth[first:last]):.3f}")
    assert dice(found, truth[first:last]) >= 0.90


@pytest.mark.parametrize("darker", [30, 60])
def test_lesions_do_not_destroy_the_liver_and_its_envelope_holds_them(test_data: Path, darker: int) -> None:
    volume, truth = enhanced(test_data)
    with_them, lesions = with_lesions(volume, truth, count=4, diameter_mm=35.0, darker=darker, seed=3)
    found = segment_liver(with_them)
    assert found is not None
    envelope = make_envelope(found, volume.geometry, LiverSettings()).full()
    held = float((envelope & lesions).sum() / lesions.sum())
    print(f"\n4 lesions of 35 mm, {darker} HU darker: Dice {dice(found, truth):.3f}, envelope holds {held:.3f} of them")
    assert dice(found, truth) >= 0.88
    assert held >= 0.95


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_phantoms_liver_has_dice_of_090(seed: int) -> None:
    phantom = abdomen_phantom(seed=seed, **SMALL)
    found = segment_liver(CTVolume(hu=phantom.hu, geometry=phantom.geometry, sources=()))
    print(f"\nphantom {seed}: Dice {dice(found, phantom.liver.full()):.3f}")
    assert dice(found, phantom.liver.full()) >= 0.90


def test_an_empty_room_has_no_liver() -> None:
    volume = thorax()
    assert segment_liver(with_hu(volume, np.full(volume.hu.shape, -1000))) is None


def test_progress_reaches_its_end(test_data: Path) -> None:
    told: list[tuple[str, int, int]] = []
    segment_liver(unenhanced(test_data)[0], lambda *at: told.append(at))
    assert told[-1][1] == told[-1][2]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
