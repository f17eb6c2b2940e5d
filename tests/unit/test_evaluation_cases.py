"""A folder of cases is read as docs/evaluation.md says, and what is wrong with a case is said with its name."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from m3node.errors import ConfigError, InputRejected
from m3node.evaluation.cases import phantoms
from m3node.evaluation.cases.label_maps import parts_of
from m3node.evaluation.cases.layout import find_cases
from m3node.evaluation.cases.phantoms import write_phantom_cases
from m3node.evaluation.cases.reading import Case, read_case
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.evaluation.phantom import SMALL, Phantom, abdomen_phantom
from m3node.identity import DEVICE_UID
from m3node.imaging.mask import VoxelMask
from m3node.imaging.nifti import write_nifti_mask
from m3node.progress import silent
from m3node.settings import Settings

SHAPE = (10, 24, 20)
GEOMETRY = axial_geometry(SHAPE, (2.0, 1.0, 1.5), origin=(-10.0, 5.0, 30.0))
LIVER, MASS, SPLEEN, KIDNEY = (
    Code("10200004", "SCT", "Liver"),
    Code("4147007", "SCT", "Mass"),
    Code("78961009", "SCT", "Spleen"),
    Code("64033007", "SCT", "Kidney"),
)


def labels(*blocks: tuple[int, int, int]) -> np.ndarray:
    """Blocks of 2 × 3 × 4 voxels: (value, slice, column)."""
    values = np.zeros(SHAPE, dtype=np.uint8)
    for value, k, c in blocks:
        values[k : k + 2, 5:8, c : c + 4] = value
    return values


def case_of(root: Path, name: str = "one") -> Case:
    (found,) = [case for case in find_cases(root) if case.name == name]
    return read_case(found, Settings())


def nifti_case(root: Path, name: str = "one", said: str = "", **masks: np.ndarray) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    hu = np.random.default_rng(1).integers(0, 100, SHAPE, dtype=np.int16)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GEOMETRY.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine), folder / "ct.nii.gz")
    for kind, values in masks.items():
        write_nifti_mask(values, GEOMETRY, folder / f"{kind}.nii.gz")
    if said:
        (folder / "case.toml").write_text(said)
    return folder


def dicom_case(root: Path, name: str = "one") -> tuple[Path, list[pydicom.Dataset]]:
    hu = np.random.default_rng(1).integers(0, 100, SHAPE, dtype=np.int16)
    files = write_ct_series(root / name / "ct", hu, GEOMETRY, seed=name)
    return root / name, [pydicom.dcmread(path) for path in files]


def write_seg(
    path: Path,
    sources: list[pydicom.Dataset],
    segments: list[tuple[Code, np.ndarray, Code | None]],
    device: str = "",
    category: Code = codes.SCT.Organ,
) -> None:
    written = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack([mask for _, mask, _ in segments], axis=-1),
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"segment {number}",
                segmented_property_category=category,
                segmented_property_type=what,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
                anatomic_regions=[region] if region else None,
            )
            for number, (what, _, region) in enumerate(segments, start=1)
        ],
        series_instance_uid=hd.UID(),
        series_number=5,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    if device:
        written.DeviceUID = device
    written.save_as(path)


def test_a_lesion_map_of_one_value_is_cut_into_its_parts(tmp_path: Path) -> None:
    nifti_case(tmp_path, liver=labels((1, 1, 2), (1, 3, 2)), lesions=labels((1, 1, 2), (1, 5, 10)))
    case = case_of(tmp_path)
    assert case.lesions is not None
    assert [lesion.extent for lesion in case.lesions] == [((1, 3), (5, 8), (2, 6)), ((5, 7), (5, 8), (10, 14))]
    assert case.liver is not None
    assert case.liver.count == 48


def test_parts_touch_at_corners_too_and_one_may_reach_around_another(tmp_path: Path) -> None:
    data = np.zeros((3, 9, 9), dtype=np.bool_)
    data[0, 0, 0] = data[1, 1, 1] = data[2, 2, 2] = True  # one, by its corners
    data[:, 8, 4:] = data[:, 4:, 8] = True  # one around a corner
    data[1, 5:7, 5:7] = True  # one within its bounds
    parts = parts_of(VoxelMask(shape=SHAPE, start=(4, 3, 2), data=data))
    assert [(part.extent, part.count) for part in parts] == [
        (((4, 7), (3, 6), (2, 5)), 3),
        (((4, 7), (7, 12), (6, 11)), 27),
        (((5, 6), (8, 10), (7, 9)), 4),
    ]


@pytest.mark.parametrize(
    "values",
    [np.linspace(0, 1, 5), np.array([0.0, -1.0]), np.arange(1200.0), np.array([0.0, np.nan])],
    ids=("fractions", "negative", "an image", "no number"),
)
def test_a_lesion_map_that_is_no_label_map_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    folder = nifti_case(tmp_path, lesions=labels((1, 1, 2)))
    filled = np.resize(values, SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(filled.transpose(2, 1, 0), np.eye(4)), folder / "lesions.nii.gz")
    with pytest.raises(InputRejected, match=r"lesions.nii.gz is no label map: whole numbers from 0 are"):
        case_of(tmp_path)


def test_in_a_lesion_map_of_several_values_each_is_a_lesion_also_where_they_touch(tmp_path: Path) -> None:
    nifti_case(tmp_path, lesions=labels((1, 1, 2), (2, 3, 2), (2, 7, 2)))
    case = case_of(tmp_path)
    assert case.lesions is not None
    assert [lesion.count for lesion in case.lesions] == [24, 48]
    assert case.liver is None


def test_a_label_map_says_liver_and_lesions_and_the_lesions_are_liver_too(tmp_path: Path) -> None:
    nifti_case(tmp_path, labels=labels((1, 1, 2), (2, 3, 2), (2, 7, 10)))
    case = case_of(tmp_path)
    assert case.liver is not None
    assert case.lesions is not None
    assert case.liver.count == 72
    assert [lesion.extent for lesion in case.lesions] == [((3, 5), (5, 8), (2, 6)), ((7, 9), (5, 8), (10, 14))]


def test_a_label_map_without_a_lesion_says_that_there_is_none_with_and_without_a_liver(tmp_path: Path) -> None:
    nifti_case(tmp_path, "liver", labels=labels((1, 1, 2)))
    nifti_case(tmp_path, "nothing", labels=labels())
    liver, nothing = case_of(tmp_path, "liver"), case_of(tmp_path, "nothing")
    assert (liver.lesions, nothing.lesions, nothing.liver) == ((), (), None)
    assert liver.liver is not None


def test_healthy_is_said_by_an_empty_map_or_by_the_case_file_and_silence_is_no_truth(tmp_path: Path) -> None:
    nifti_case(tmp_path, "empty map", lesions=labels())
    nifti_case(tmp_path, "said", "healthy = true\n")
    nifti_case(tmp_path, "silent")
    assert case_of(tmp_path, "empty map").lesions == ()
    assert case_of(tmp_path, "said").lesions == ()
    assert case_of(tmp_path, "silent").lesions is None


def test_a_healthy_case_with_lesions_contradicts_itself(tmp_path: Path) -> None:
    nifti_case(tmp_path, said="healthy = true\n", lesions=labels((1, 1, 2)))
    with pytest.raises(InputRejected, match="1 lesion"):
        case_of(tmp_path)


def test_a_seg_of_the_series_says_liver_and_lesions_by_its_codes(tmp_path: Path) -> None:
    folder, sources = dicom_case(tmp_path)
    segments = [
        (LIVER, labels((1, 1, 2), (1, 3, 2)) > 0, None),
        (MASS, labels((1, 1, 2)) > 0, LIVER),
        (MASS, labels((1, 3, 2)) > 0, None),
        (MASS, labels((1, 5, 2)) > 0, KIDNEY),
        (SPLEEN, labels((1, 7, 10)) > 0, None),
    ]
    write_seg(folder / "truth.dcm", sources, segments)
    case = case_of(tmp_path)
    assert case.lesions is not None
    assert [lesion.extent for lesion in case.lesions] == [((1, 3), (5, 8), (2, 6)), ((3, 5), (5, 8), (2, 6))]
    assert case.liver is not None
    # In the reader of received SEGs what is coded as lying in the liver is liver.
    assert case.liver.count == 48
    assert case.volume.geometry.shape == SHAPE


def test_a_segment_is_a_lesion_by_its_category_whatever_its_type(tmp_path: Path) -> None:
    folder, sources = dicom_case(tmp_path)
    abscess, altered = Code("128477000", "SCT", "Abscess"), Code("49755003", "SCT", "Morphologically Altered Structure")
    write_seg(folder / "truth.dcm", sources, [(abscess, labels((1, 1, 2)) > 0, None)], category=altered)
    lesions = case_of(tmp_path).lesions
    assert lesions is not None
    assert [lesion.count for lesion in lesions] == [24]


def test_a_lesion_that_lies_on_none_of_the_stacks_slices_makes_the_case_unusable(tmp_path: Path) -> None:
    folder, _ = dicom_case(tmp_path)
    higher = axial_geometry(SHAPE, (2.0, 1.0, 1.5), origin=(-10.0, 5.0, 130.0))
    files = write_ct_series(tmp_path / "elsewhere", np.ones(SHAPE, np.int16), higher, seed="one")
    write_seg(folder / "truth.dcm", [pydicom.dcmread(path) for path in files], [(MASS, labels((1, 1, 2)) > 0, None)])
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(InputRejected):
        case_of(tmp_path)


def test_a_case_is_another_when_a_file_changes_or_is_called_otherwise(tmp_path: Path) -> None:
    folder = nifti_case(tmp_path, lesions=labels((1, 1, 2)))

    def digest() -> str:
        return find_cases(tmp_path)[0].digest()

    first = digest()
    (folder / "lesions.nii.gz").touch()
    assert digest() == first
    (folder / "lesions.nii.gz").rename(folder / "liver.nii.gz")
    assert digest() != first
    (folder / "liver.nii.gz").rename(folder / "lesions.nii.gz")
    assert digest() == first
    (folder / "case.toml").write_text("patient = 'P1'\n")
    assert digest() != first


def test_one_lesion_segment_is_cut_into_its_parts_and_none_is_no_truth(tmp_path: Path) -> None:
    folder, sources = dicom_case(tmp_path, "parts")
    write_seg(folder / "truth.dcm", sources, [(MASS, labels((1, 1, 2), (1, 5, 2)) > 0, None)])
    folder, sources = dicom_case(tmp_path, "liver only")
    write_seg(folder / "truth.dcm", sources, [(LIVER, labels((1, 1, 2)) > 0, None)])
    parts = case_of(tmp_path, "parts").lesions
    assert parts is not None
    assert len(parts) == 2
    assert case_of(tmp_path, "liver only").lesions is None


def test_a_dicom_series_may_have_nifti_masks(tmp_path: Path) -> None:
    folder, _ = dicom_case(tmp_path)
    write_nifti_mask(labels((1, 1, 2)), GEOMETRY, folder / "lesions.nii.gz")
    lesions = case_of(tmp_path).lesions
    assert lesions is not None
    assert [lesion.extent for lesion in lesions] == [((1, 3), (5, 8), (2, 6))]


def test_several_segs_are_read_together_and_what_is_nifti_comes_before_them(tmp_path: Path) -> None:
    def folder_of(name: str) -> Path:
        folder, sources = dicom_case(tmp_path, name)
        first = [(LIVER, labels((1, 1, 2)) > 0, None), (MASS, labels((1, 1, 2)) > 0, None)]
        second = [(LIVER, labels((1, 5, 2)) > 0, None), (MASS, labels((1, 5, 2), (1, 8, 12)) > 0, None)]
        write_seg(folder / "1.dcm", sources, first)
        write_seg(folder / "2.dcm", sources, second)
        return folder

    folder_of("segs")
    folder = folder_of("nifti")
    write_nifti_mask(labels((1, 3, 2)), GEOMETRY, folder / "lesions.nii.gz")
    write_nifti_mask(labels((1, 7, 2)), GEOMETRY, folder / "liver.nii.gz")
    segs, nifti = case_of(tmp_path, "segs"), case_of(tmp_path, "nifti")
    assert segs.liver is not None
    assert segs.lesions is not None
    assert segs.liver.extent is not None
    assert segs.liver.extent[0] == (1, 3)  # of the first that has one
    assert [lesion.extent[0] for lesion in segs.lesions if lesion.extent] == [(1, 3), (5, 7), (8, 10)]
    assert nifti.liver is not None
    assert nifti.lesions is not None
    assert [mask.extent[0] for mask in (nifti.liver, *nifti.lesions) if mask.extent] == [(7, 9), (3, 5)]


def test_a_detectors_own_seg_is_no_truth(tmp_path: Path) -> None:
    folder, sources = dicom_case(tmp_path)
    write_seg(folder / "segmentation.seg.dcm", sources, [(MASS, labels((1, 1, 2)) > 0, None)], device=DEVICE_UID)
    with pytest.raises(InputRejected, match=r"segmentation.seg.dcm is a SEG of m3node's own"):
        case_of(tmp_path)


def test_a_case_of_two_stacks_is_refused(tmp_path: Path) -> None:
    folder, _ = dicom_case(tmp_path)
    write_ct_series(folder / "other", np.zeros(SHAPE, dtype=np.int16), GEOMETRY, seed="other")
    with pytest.raises(InputRejected, match="2 CT stacks; make one case of each"):
        case_of(tmp_path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("patient = 3\n", "case one: case.toml: patient = 3 is no str"),
        ("pateint = 'x'\n", "case one: case.toml has 'pateint'; it may have patient, healthy, phantom"),
        ("healthy\n", "case one: case.toml cannot be read"),
    ],
)
def test_a_wrong_case_file_is_named(tmp_path: Path, said: str, message: str) -> None:
    nifti_case(tmp_path, said=said)
    with pytest.raises(ConfigError, match=message):
        find_cases(tmp_path)


def test_a_folder_that_holds_no_case_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no case; a folder of cases has one folder a case"):
        find_cases(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(ConfigError, match=r"case one: it has no CT; put in ct.nii.gz"):
        find_cases(tmp_path)


def test_two_truths_for_one_case_are_refused(tmp_path: Path) -> None:
    nifti_case(tmp_path, labels=labels((1, 1, 2)), lesions=labels((1, 1, 2)))
    with pytest.raises(ConfigError, match=r"case one: labels.nii.gz says liver and lesions both"):
        find_cases(tmp_path)


def test_values_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    nifti_case(tmp_path, labels=labels((1, 1, 2), (7, 3, 2)))
    with pytest.raises(InputRejected, match=r"labels.nii.gz holds \[7\]"):
        case_of(tmp_path)


@pytest.mark.parametrize("dicom", [False, True])
def test_phantom_cases_come_back_as_they_were_made(tmp_path: Path, dicom: bool) -> None:
    write_phantom_cases(
        tmp_path,
        ill=1,
        healthy=1,
        first_seed=5,
        dicom=dicom,
        progress=silent,
        shape=SMALL["shape"],
        spacing=SMALL["spacing"],
    )
    ill, healthy = case_of(tmp_path, "lesions-5"), case_of(tmp_path, "healthy-6")
    phantom = abdomen_phantom(seed=5, **SMALL)
    assert np.array_equal(ill.volume.hu, phantom.hu)
    assert ill.lesions is not None
    assert [lesion.extent for lesion in ill.lesions] == [lesion.mask.extent for lesion in phantom.lesions]
    assert healthy.lesions == ()
    assert healthy.folder.phantom
    with pytest.raises(ConfigError, match="lesions-5 already"):
        write_phantom_cases(tmp_path, ill=1, healthy=0, first_seed=5, progress=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["healthy-6", "lesions-5"]


def tiny_phantom(**_: object) -> Phantom:
    shape = (2, 4, 4)
    return Phantom(np.zeros(shape, np.int16), axial_geometry(shape, (2.0, 1.0, 1.0)), VoxelMask.empty(shape), ())


@pytest.mark.parametrize("interrupted_at", ["a phantom", "a move"])
def test_interrupted_phantoms_are_no_cases_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted_at: str
) -> None:
    made: list[int] = []

    def make(*, seed: int, **_: object) -> Phantom:
        made.append(seed)
        if len(made) == 3 and interrupted_at == "a phantom":
            raise KeyboardInterrupt
        return tiny_phantom()

    def move(self: Path, target: Path) -> Path:
        if target == tmp_path / "lesions-6" and interrupted_at == "a move":
            raise KeyboardInterrupt
        return rename(self, target)

    rename = Path.rename
    write = partial(write_phantom_cases, tmp_path, healthy=1, first_seed=5, progress=silent)
    with monkeypatch.context() as broken:
        broken.setattr(phantoms, "abdomen_phantom", make)
        broken.setattr(Path, "rename", move)
        with pytest.raises(KeyboardInterrupt):
            write(ill=2)
    shown = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert shown == ([] if interrupted_at == "a phantom" else ["lesions-5"])
    if not shown:
        with pytest.raises(ConfigError, match="holds no case"):
            find_cases(tmp_path)
    monkeypatch.setattr(phantoms, "abdomen_phantom", make)
    assert [path.name for path in write(ill=2)] == ["lesions-5", "lesions-6", "healthy-7"]
    assert made == [5, 6, 7, 7] if interrupted_at == "a phantom" else made == [5, 6, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["healthy-7", "lesions-5", "lesions-6"]
    assert {len(list(path.iterdir())) for path in tmp_path.iterdir()} == {4}
    with pytest.raises(ConfigError, match="lesions-5 already"):
        write(ill=2)


@pytest.mark.parametrize("other", [{"dicom": True}, {"healthy": 0, "ill": 3}, {"shape": (2, 4, 5)}, {}], ids=str)
def test_what_an_interrupted_call_left_is_not_taken_for_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    made: list[int] = []

    def make(*, seed: int, **_: object) -> Phantom:
        made.append(seed)
        if len(made) == 3:
            raise KeyboardInterrupt
        return tiny_phantom()

    monkeypatch.setattr(phantoms, "abdomen_phantom", make)
    asked: dict[str, Any] = {"ill": 2, "healthy": 1, "first_seed": 5, "progress": silent}
    with pytest.raises(KeyboardInterrupt):
        write_phantom_cases(tmp_path, **asked)
    if not other:  # another version of the package, which may make others
        monkeypatch.setattr(phantoms, "__version__", "99")
    write_phantom_cases(tmp_path, **asked | other)
    assert made == [5, 6, 7, 5, 6, 7]
    monkeypatch.undo()
    # Nor is what the other call made taken for what this one moved.
    with pytest.raises(ConfigError, match="lesions-5 already"):
        write_phantom_cases(tmp_path, **asked)


def test_a_case_file_says_whose_case_it_is_and_that_it_is_a_phantom(tmp_path: Path) -> None:
    nifti_case(tmp_path, "said", "patient = 'P7'\nphantom = true\n")
    nifti_case(tmp_path, "silent")
    nifti_case(tmp_path, "肝\u3000é")
    assert [(case.name, case.patient, case.phantom) for case in find_cases(tmp_path)] == [
        ("said", "P7", True),
        ("silent", "silent", False),
        ("肝\u3000é", "肝\u3000é", False),
    ]


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_case_whose_name_cannot_be_written_is_refused_at_once(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).mkdir()
    with pytest.raises(ConfigError, match="such a name cannot be written into tables; rename the folder"):
        find_cases(tmp_path)


def test_the_files_of_a_case_may_have_any_name(tmp_path: Path) -> None:
    folder = nifti_case(tmp_path)
    first = find_cases(tmp_path)[0].digest()
    (folder / os.fsdecode(b"caf\xe9")).touch()
    assert find_cases(tmp_path)[0].digest() != first


def test_of_two_files_of_one_name_none_is_chosen(tmp_path: Path) -> None:
    folder = nifti_case(tmp_path, lesions=labels((1, 1, 2)))
    write_nifti_mask(labels((1, 3, 2)), GEOMETRY, folder / "lesions.nii")
    with pytest.raises(ConfigError, match=r"case one: lesions.nii and lesions.nii.gz are both there; keep one"):
        find_cases(tmp_path)
