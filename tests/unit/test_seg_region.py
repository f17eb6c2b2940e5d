"""A received SEG's liver lands on the right voxels, and one that does not fit says why."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from liver_data import arranged, rearranged, stack, thorax
from m3node.errors import InputRejected
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume, SliceSource
from m3node.intake.series.seg_reference import read_seg_reference
from m3node.liver.find import find_liver, region_from_mask
from m3node.liver.from_seg import region_from_seg
from m3node.liver.region import LiverSource
from m3node.rejection import Reason
from m3node.settings import LiverSettings

SETTINGS = LiverSettings()
SHAPE = (12, 40, 48)
LIVER, LESION, SPLEEN = (
    Code("10200004", "SCT", "Liver"),
    Code("4147007", "SCT", "Mass"),
    Code("78961009", "SCT", "Spleen"),
)


def ct(folder: Path, **geometry: Any) -> tuple[CTVolume, list[pydicom.Dataset]]:
    """A series on disk and as the volume that the node makes of it."""
    placed = {"shape": SHAPE, "spacing": (2.5, 0.8, 0.9), "origin": (-30.0, 12.0, 100.0), **geometry}
    grid = axial_geometry(**placed)
    hu = np.full(grid.shape, 60, dtype=np.int16)
    sources = [pydicom.dcmread(path) for path in write_ct_series(folder, hu, grid, seed=folder.name)]
    refs = tuple(SliceSource(ds.SOPClassUID, ds.SOPInstanceUID, None) for ds in sources)
    return CTVolume(hu=hu, geometry=grid, sources=refs), sources


def blob(seed: int = 0) -> BoolArray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:9, 8:30, 10:36] = np.random.default_rng(seed).random((6, 22, 26)) < 0.7
    mask[5] = False  # empty frames are left out of a SEG
    return mask


def described(number: int, what: Code, region: Code | None = None) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"segment {number}",
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=what,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="Segmenter", version="3", family=codes.DCM.ArtificialIntelligence
        ),
        anatomic_regions=[region] if region else None,
    )


def seg(
    path: Path,
    sources: list[pydicom.Dataset],
    pixels: np.ndarray,
    segments: list[hd.seg.SegmentDescription],
    kind: str = "BINARY",
) -> Path:
    hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=5,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


def test_real_seg_is_its_nrrd_voxel_for_voxel(test_data: Path) -> None:
    truth = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(test_data / "ct_liver_3slice_seg" / "liver_seg.nrrd"))) > 0
    )
    volume = stack(test_data / "ct_liver_3slice")
    path = test_data / "ct_liver_3slice_seg" / "liver.dcm"
    region = region_from_seg(path, volume, SETTINGS)
    assert region is not None
    assert np.array_equal(region.parenchyma.full(), truth)
    assert region.source is LiverSource.RECEIVED_SEG
    assert region.reference == str(pydicom.dcmread(path).SOPInstanceUID)
    assert region.algorithm == "SlicerEditor (received SEG)"
    assert not np.any(region.parenchyma.full() & ~region.envelope.full())


@pytest.mark.parametrize(
    ("order", "flips"),
    [((0, 1, 2), (True, False, False)), ((0, 1, 2), (True, True, True)), ((0, 2, 1), (False, True, False))],
    ids=["feet first", "reversed", "turned"],
)
def test_real_seg_lands_on_the_same_patient_stored_otherwise(
    test_data: Path, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    volume = stack(test_data / "ct_liver_3slice")
    path = test_data / "ct_liver_3slice_seg" / "liver.dcm"
    region = region_from_seg(path, volume, SETTINGS)
    other = region_from_seg(path, rearranged(volume, order, flips), SETTINGS)
    assert region is not None
    assert other is not None
    assert np.array_equal(other.parenchyma.full(), arranged(region.parenchyma.full(), order, flips))


@pytest.mark.parametrize(
    "geometry",
    [{}, {"upwards": False}, {"row": (0.0, 1.0, 0.0), "column": (-1.0, 0.0, 0.0)}],
    ids=["head first", "downwards", "rotated in plane"],
)
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_every_kind_of_seg_gives_its_liver_back(tmp_path: Path, kind: str, geometry: dict[str, Any]) -> None:
    volume, sources = ct(tmp_path / "ct", **geometry)
    mask = blob()
    pixels = mask.astype(np.float32) if kind == "FRACTIONAL" else mask.astype(np.uint8)
    path = seg(tmp_path / "seg.dcm", sources, pixels, [described(1, LIVER)], kind)
    region = region_from_seg(path, volume, SETTINGS)
    assert region is not None
    assert np.array_equal(region.parenchyma.full(), mask)
    assert read_seg_reference(path).liver


def test_at_least_half_of_the_maximum_is_liver_in_a_fractional_seg(tmp_path: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    share = np.random.default_rng(2).choice([0.0, 0.4, 0.6, 1.0], SHAPE).astype(np.float32)
    region = region_from_seg(
        seg(tmp_path / "seg.dcm", sources, share, [described(1, LIVER)], "FRACTIONAL"), volume, SETTINGS
    )
    assert region is not None
    assert np.array_equal(region.parenchyma.full(), share > 0.5)


def test_a_seg_on_a_coarser_and_smaller_grid_covers_its_own_part_of_the_patient(tmp_path: Path) -> None:
    volume, _ = ct(tmp_path / "ct")
    # Two by two of the stack's pixels are one of the SEG's, from the stack's row 8 and column 10 on.
    corner = (-30.0 + 10.5 * 0.9, 12.0 + 8.5 * 0.8, 100.0)
    _, sources = ct(tmp_path / "coarse", shape=(12, 11, 13), spacing=(2.5, 1.6, 1.8), origin=corner)
    coarse = np.random.default_rng(3).random((12, 11, 13)) < 0.5
    path = seg(tmp_path / "seg.dcm", sources, coarse.astype(np.uint8), [described(1, LIVER)])
    changed(path, without_sources)
    region = region_from_seg(path, volume, SETTINGS)
    assert region is not None
    expected = np.zeros(SHAPE, dtype=bool)
    expected[:, 8:30, 10:36] = coarse.repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(region.parenchyma.full(), expected)


def test_a_frame_without_a_position_lies_where_its_source_image_lies_and_without_one_nowhere(tmp_path: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    mask = blob()
    path = seg(tmp_path / "seg.dcm", sources, mask.astype(np.uint8), [described(1, LIVER)])
    changed(path, without_positions)
    region = region_from_seg(path, volume, SETTINGS)
    assert region is not None
    assert np.array_equal(region.parenchyma.full(), mask)
    changed(path, without_sources)
    with pytest.raises(InputRejected, match="names no single slice") as caught:
        region_from_seg(path, volume, SETTINGS)
    assert caught.value.reason is Reason.MISSING_GEOMETRY


def test_frames_of_several_orientations_are_refused(tmp_path: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    path = seg(tmp_path / "seg.dcm", sources, blob().astype(np.uint8), [described(1, LIVER)])

    def one_turned(data: pydicom.Dataset) -> None:
        plane = pydicom.Dataset()
        plane.ImageOrientationPatient = [0, 1, 0, -1, 0, 0]
        data.PerFrameFunctionalGroupsSequence[-1].PlaneOrientationSequence = [plane]

    changed(path, one_turned)
    with pytest.raises(InputRejected, match="differ in orientation") as caught:
        region_from_seg(path, volume, SETTINGS)
    assert caught.value.reason is Reason.MIXED_GEOMETRY


def changed(path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def without_sources(data: pydicom.Dataset) -> None:
    """Drop what each frame says of the image it was made from."""
    for frame in data.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


def without_positions(data: pydicom.Dataset) -> None:
    for frame in data.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence


def test_lesions_in_the_liver_belong_to_it_and_the_spleen_does_not(tmp_path: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    labels = blob().astype(np.uint8)
    labels[6, 10:14, 12:16] = 2
    labels[7, 31:38, 2:9] = 3
    path = seg(
        tmp_path / "seg.dcm",
        sources,
        labels,
        [described(1, LIVER), described(2, LESION, LIVER), described(3, SPLEEN)],
    )
    region = region_from_seg(path, volume, SETTINGS)
    assert region is not None
    assert np.array_equal(region.parenchyma.full(), (labels == 1) | (labels == 2))


def test_seg_without_a_liver_is_none(tmp_path: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    path = seg(tmp_path / "seg.dcm", sources, blob().astype(np.uint8), [described(1, LESION, LIVER)])
    assert region_from_seg(path, volume, SETTINGS) is None


@pytest.mark.parametrize("between", [5.0, None], ids=["it says how far apart", "it does not say"])
def test_seg_on_every_second_slice_speaks_for_the_slices_between(tmp_path: Path, between: float | None) -> None:
    volume, sources = ct(tmp_path / "ct")
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:10, 5:20, 5:20] = True
    path = seg(tmp_path / "seg.dcm", sources[::2], mask[::2].astype(np.uint8), [described(1, LIVER)])

    def spaced(data: pydicom.Dataset) -> None:
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = between

    changed(path, spaced)
    changed(path, without_sources)
    region = region_from_seg(path, volume, SETTINGS)
    assert region is not None
    laid = region.parenchyma.full()
    assert np.array_equal(laid[2:9], mask[2:9])
    assert laid[1, 10, 10]  # half-way between a frame and the end of the segment
    assert not laid[[0, 10, 11]].any()


def test_seg_of_other_images_is_refused(tmp_path: Path) -> None:
    volume, _ = ct(tmp_path / "ct")
    _, others = ct(tmp_path / "other")
    path = seg(tmp_path / "seg.dcm", others, blob().astype(np.uint8), [described(1, LIVER)])
    with pytest.raises(InputRejected, match="other images") as caught:
        region_from_seg(path, volume, SETTINGS)
    assert caught.value.reason is Reason.MIXED_GEOMETRY


def test_seg_elsewhere_or_at_an_angle_is_refused(tmp_path: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    path = seg(tmp_path / "seg.dcm", sources, blob().astype(np.uint8), [described(1, LIVER)])
    far = axial_geometry(SHAPE, (2.5, 0.8, 0.9), origin=(-30.0, 12.0, 900.0))
    with pytest.raises(InputRejected, match="none of the stack's slices"):
        region_from_seg(path, CTVolume(hu=volume.hu, geometry=far, sources=()), SETTINGS)
    turned = axial_geometry(SHAPE, (2.5, 0.8, 0.9), column=(0.0, 0.0, -1.0))
    with pytest.raises(InputRejected, match="at an angle"):
        region_from_seg(path, CTVolume(hu=volume.hu, geometry=turned, sources=()), SETTINGS)


def test_what_is_no_seg_or_is_damaged_is_refused(tmp_path: Path, test_data: Path) -> None:
    volume, sources = ct(tmp_path / "ct")
    with pytest.raises(InputRejected) as caught:
        region_from_seg(tmp_path / "ct" / "0000.dcm", volume, SETTINGS)
    assert caught.value.reason is Reason.NOT_CT
    path = seg(tmp_path / "seg.dcm", sources, blob().astype(np.uint8), [described(1, LIVER)])
    data = pydicom.dcmread(path)
    data.PixelData = data.PixelData[: len(data.PixelData) // 2]
    data.save_as(tmp_path / "short.dcm")
    with pytest.raises(InputRejected) as caught:
        region_from_seg(tmp_path / "short.dcm", volume, SETTINGS)
    assert caught.value.reason is Reason.UNDECODABLE
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM")
    with pytest.raises(InputRejected) as caught:
        region_from_seg(text, volume, SETTINGS)
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("group", "keyword", "value"),
    [
        (None, "Rows", None),
        (None, "BitsAllocated", None),
        (None, "PerFrameFunctionalGroupsSequence", None),
        (None, "SharedFunctionalGroupsSequence", None),
        ("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0]),
        ("PixelMeasuresSequence", "PixelSpacing", [0.8]),
    ],
)
def test_an_attribute_that_is_absent_or_wrong_costs_the_seg_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, group: str | None, keyword: str, value: object
) -> None:
    volume, sources = ct(tmp_path / "ct")
    path = seg(tmp_path / "seg.dcm", sources, blob().astype(np.uint8), [described(1, LIVER)])

    def damaged(data: pydicom.Dataset) -> None:
        holder = data if group is None else data.SharedFunctionalGroupsSequence[0][group].value[0]
        delattr(holder, keyword) if value is None else setattr(holder, keyword, value)

    changed(path, damaged)
    with pytest.raises(InputRejected, match=r"SEG 1\."):
        region_from_seg(path, volume, SETTINGS)
    assert find_liver(volume, SETTINGS, seg_paths=[path]) is None  # looked for in the picture, which is all grey
    assert "received SEG not used" in caplog.text


def test_the_first_seg_that_fits_is_used_before_the_embedded_segmentation(
    test_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = stack(test_data / "ct_liver_3slice")
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM")
    good, later = test_data / "ct_liver_3slice_seg" / "liver.dcm", tmp_path / "later.dcm"
    shutil.copyfile(good, later)
    changed(later, lambda data: setattr(data, "SOPInstanceUID", hd.UID()))
    with caplog.at_level(logging.WARNING):
        region = find_liver(volume, SETTINGS, seg_paths=[text, good, later])
    assert region is not None
    assert region.source is LiverSource.RECEIVED_SEG
    assert region.reference == pydicom.dcmread(good).SOPInstanceUID
    assert "unreadable" in caplog.text


@pytest.mark.parametrize("settings", [SETTINGS, LiverSettings(use_received_seg=False)])
def test_without_a_usable_seg_the_embedded_segmentation_serves(
    test_data: Path, tmp_path: Path, settings: LiverSettings
) -> None:
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM")
    good = test_data / "ct_liver_3slice_seg" / "liver.dcm"
    paths = [text] if settings.use_received_seg else [good]
    region = find_liver(stack(test_data / "ct_liver_3slice"), settings, seg_paths=paths)
    assert region is not None
    assert region.source is LiverSource.EMBEDDED
    assert region.reference == ""
    assert "embedded" in region.algorithm


def test_a_liver_smaller_than_the_setting_is_none(test_data: Path) -> None:
    volume = stack(test_data / "ct_liver_3slice")
    good = test_data / "ct_liver_3slice_seg" / "liver.dcm"
    assert find_liver(volume, LiverSettings(min_volume_ml=500.0), seg_paths=[good]) is None


def test_a_supplied_mask_becomes_a_region_of_its_own_kind() -> None:
    geometry = axial_geometry(SHAPE, (2.5, 0.8, 0.9))
    mask = VoxelMask.from_full(blob())
    millilitres = mask.count * geometry.voxel_volume_ml
    region = region_from_mask(mask, geometry, LiverSettings(min_volume_ml=millilitres / 2))
    assert region is not None
    assert region.source is LiverSource.LABEL_MAP
    assert np.array_equal(region.parenchyma.full(), blob())
    assert not np.any(blob() & ~region.envelope.full())
    assert region_from_mask(mask, geometry, LiverSettings(min_volume_ml=millilitres * 2)) is None


def test_no_liver_in_view_is_none() -> None:
    assert find_liver(thorax(), SETTINGS) is None
