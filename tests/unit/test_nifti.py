"""NIfTI volumes and masks land where the patient is."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liver_data import LIVER, enhanced
from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.nifti import read_nifti, read_nifti_mask, write_nifti_mask
from m3node.imaging.volume import CTVolume
from m3node.rejection import Reason

RAS = np.diag([1.0, 1.0, 1.0, 1.0])


def saved(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def test_label_map_with_other_axes_lies_on_the_dicom_stack(test_data: Path) -> None:
    volume, liver = enhanced(test_data)
    assert liver.sum() == 366708
    # The label map is stored L A S, the stack L P S: were a row not turned over, the label would hold fat and air.
    assert 80 < np.median(volume.hu[liver]) < 110
    assert np.mean(volume.hu[liver] < -20) < 0.01


def test_real_volume_has_its_slices_rising_and_its_voxels_where_nibabel_puts_them(test_data: Path) -> None:
    path = test_data / "nifti" / "example_ct_sm.nii.gz"
    volume = read_nifti(path)
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)
    assert volume.geometry.affine[2, 0] > 0
    for i, j, k in ((0, 0, 0), (100, 50, 20), (121, 100, 29)):
        ras = image.affine @ [i, j, k, 1]
        s, r, c = np.rint(volume.geometry.to_voxel([-ras[0], -ras[1], ras[2]])).astype(int)
        assert volume.hu[s, r, c] == data[i, j, k]


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    steps=st.tuples(*[st.floats(0.5, 5.0)] * 3),
    turn=st.floats(-0.2, 0.2),
)
def test_any_axes_keep_every_voxel_at_its_place_in_the_patient(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    signs: tuple[float, float, float],
    steps: tuple[float, float, float],
    turn: float,
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, world in enumerate(order):
        affine[world, axis] = signs[axis] * steps[axis]
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = about_z @ affine[:3, :3]
    affine[:3, 3] = (-20.0, 31.0, 7.0)
    data = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    path = saved(tmp_path_factory.mktemp("nifti") / "ct.nii", data, affine)
    volume = read_nifti(path)
    assert volume.geometry.affine[2, 0] > 0
    # Slices along z, rows along y, columns along x, whatever the file's order was.
    assert np.abs(volume.geometry.affine[:3, :3]).argmax(axis=0).tolist() == [2, 1, 0]
    for index in ((0, 0, 0), (3, 4, 5), (1, 2, 3)):
        ras = affine @ [*index, 1]
        at = np.rint(volume.geometry.to_voxel([-ras[0], -ras[1], ras[2]])).astype(int)
        assert volume.hu[tuple(at)] == data[index]
    mask = read_nifti_mask(path, volume, 42)
    assert np.array_equal(mask.full(), volume.hu == 42)


def test_scaled_values_become_hu(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.array([[[0, 2048]]], dtype=np.int16).repeat(2, 0), RAS)
    image.header.set_slope_inter(0.5, -1000)
    nibabel.save(image, tmp_path / "ct.nii")
    assert sorted(set(read_nifti(tmp_path / "ct.nii").hu.ravel().tolist())) == [-1000, 24]


def test_not_a_number_is_air(tmp_path: Path) -> None:
    data = np.full((2, 2, 2), 40.0, dtype=np.float32)
    data[0, 0, 0] = np.nan
    assert read_nifti(saved(tmp_path / "ct.nii", data, RAS)).hu.min() == -1024


@settings(max_examples=20, deadline=None)
@given(
    row=st.sampled_from([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)]),
    upwards=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_written_mask_is_read_back_voxel_for_voxel(
    tmp_path_factory: pytest.TempPathFactory, row: tuple[float, float, float], upwards: bool, seed: int
) -> None:
    column = (-row[1], row[0], 0.0)
    geometry = axial_geometry(
        (6, 7, 8), (2.5, 0.7, 0.9), origin=(3.0, -4.0, 5.0), row=row, column=column, upwards=upwards
    )
    mask = np.random.default_rng(seed).random((6, 7, 8)) < 0.3
    path = tmp_path_factory.mktemp("nifti") / "liver.nii.gz"
    write_nifti_mask(VoxelMask.from_full(mask), geometry, path)
    volume = CTVolume(hu=np.zeros((6, 7, 8), dtype=np.int16), geometry=geometry, sources=())
    assert np.array_equal(read_nifti_mask(path, volume).full(), mask)


def test_a_mask_on_a_coarser_grid_is_laid_on_by_nearest_neighbour(tmp_path: Path) -> None:
    fine = axial_geometry((8, 16, 16), (1.0, 1.0, 1.0))
    coarse = axial_geometry((4, 8, 8), (2.0, 2.0, 2.0), origin=(0.5, 0.5, 0.5))
    mask = np.random.default_rng(1).random((4, 8, 8)) < 0.4
    write_nifti_mask(mask, coarse, tmp_path / "liver.nii.gz")
    volume = CTVolume(hu=np.zeros((8, 16, 16), dtype=np.int16), geometry=fine, sources=())
    laid = read_nifti_mask(tmp_path / "liver.nii.gz", volume).full()
    assert np.array_equal(laid, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_labels_beyond_255_keep_their_values(tmp_path: Path) -> None:
    labels = np.zeros((2, 3, 4), dtype=np.uint16)
    labels[1, 2, 3] = 300
    write_nifti_mask(labels, axial_geometry((2, 3, 4), (1.0, 1.0, 1.0)), tmp_path / "labels.nii.gz")
    assert np.asarray(nibabel.load(tmp_path / "labels.nii.gz").dataobj)[3, 2, 1] == 300


def test_what_cannot_be_read_says_why(tmp_path: Path, test_data: Path) -> None:
    text = tmp_path / "text.nii"
    text.write_text("no image")
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes((test_data / "nifti" / "example_ct_sm.nii.gz").read_bytes()[:50_000])
    four = saved(tmp_path / "four.nii", np.zeros((2, 2, 2, 3), dtype=np.int16), RAS)
    flat = saved(tmp_path / "flat.nii", np.zeros((2, 2, 2), dtype=np.int16), RAS)
    nowhere = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), None)
    nibabel.save(nowhere, tmp_path / "nowhere.nii")
    slanted = np.eye(4)
    slanted[:3, :3] = [[1, 0, 0], [0, 0.7071, -0.7071], [0, 0.7071, 0.7071]]
    tilted = saved(tmp_path / "tilted.nii", np.arange(8, dtype=np.int16).reshape(2, 2, 2), slanted)
    header = nibabel.Nifti1Header()
    header.set_sform(np.diag([1.0, 0.0, 1.0, 1.0]), code=1)
    squashed = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), None, header)
    nibabel.save(squashed, tmp_path / "squashed.nii")
    for path, reason in (
        (tmp_path / "absent.nii", Reason.UNREADABLE),
        (text, Reason.UNREADABLE),
        (cut, Reason.UNREADABLE),
        (four, Reason.UNSUPPORTED_PIXELS),
        (flat, Reason.UNSUPPORTED_PIXELS),
        (tmp_path / "nowhere.nii", Reason.MISSING_GEOMETRY),
        (tmp_path / "squashed.nii", Reason.MISSING_GEOMETRY),
        (tilted, Reason.TILTED),
    ):
        with pytest.raises(InputRejected) as caught:
            read_nifti(path)
        assert caught.value.reason is reason, path.name
        assert path.name in caught.value.message


def test_a_mask_without_the_label_or_far_away_says_so(tmp_path: Path) -> None:
    volume = CTVolume(
        hu=np.zeros((2, 4, 4), dtype=np.int16), geometry=axial_geometry((2, 4, 4), (1.0, 1.0, 1.0)), sources=()
    )
    mask = np.ones((2, 4, 4), dtype=np.uint8)
    write_nifti_mask(mask, axial_geometry((2, 4, 4), (1.0, 1.0, 1.0), origin=(500.0, 0.0, 0.0)), tmp_path / "far.nii")
    with pytest.raises(InputRejected) as caught:
        read_nifti_mask(tmp_path / "far.nii", volume)
    assert caught.value.reason is Reason.MIXED_GEOMETRY
    with pytest.raises(InputRejected, match=f"label {LIVER}"):
        read_nifti_mask(tmp_path / "far.nii", volume, LIVER)
