"""The SEG shows the masks it was made from: voxel for voxel, in patient space, however the series is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from pydicom.tag import Tag

from m3node.errors import ResultError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.intake.series.manifest import Manifest
from m3node.liver.region import LiverSource
from m3node.m3.lesion import MaskOrigin
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.build import build_objects
from m3node.results.findings import Findings
from m3node.results.objects import ObjectKind
from m3node.results.segmentation import LESION_COLOURS, lesion_colour, mask_words
from m3node.results.succession import assign_tracking
from m3node.settings import Settings
from made_findings import ellipsoid, made_findings, made_lesion
from made_manifest import made_manifest, manifest_geometry

SHAPE = (14, 37, 53)  # rows × columns is no multiple of 8: frames do not begin at a byte
SPACING = (2.5, 0.8, 0.7)
TURN = float(np.cos(np.radians(12))), float(np.sin(np.radians(12)))

STORAGE = {
    "head first supine": (axial_geometry(SHAPE, SPACING, origin=(-20, -30, 100)), "HFS"),
    "feet first supine": (
        axial_geometry(SHAPE, SPACING, origin=(20, -30, 100), row=(-1, 0, 0), column=(0, 1, 0)),
        "FFS",
    ),
    "head first prone": (
        axial_geometry(SHAPE, SPACING, origin=(20, 30, 100), row=(-1, 0, 0), column=(0, -1, 0)),
        "HFP",
    ),
    "slices stored downwards": (axial_geometry(SHAPE, SPACING, origin=(-20, -30, 100), upwards=False), "HFS"),
    "rotated in plane": (
        axial_geometry(SHAPE, SPACING, origin=(-20, -30, 100), row=(*TURN, 0), column=(-TURN[1], TURN[0], 0)),
        "HFS",
    ),
}


def series(folder: Path, geometry: PatientGeometry, patient_position: str = "HFS") -> Manifest:
    hu = np.zeros(geometry.shape, dtype=np.int16)
    return made_manifest(write_ct_series(folder / "ct", hu, geometry, seed=1, patient_position=patient_position))


def segment_in_patient_space(path: Path, number: int) -> npt.NDArray[np.float64]:
    """Sorted patient coordinates of a segment's voxels, as highdicom reads them."""
    volume = hd.seg.segread(path).get_volume(segment_numbers=[number], combine_segments=False)
    indices = np.argwhere(volume.array[..., 0])
    points = indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return sorted_points(points)


def mask_in_patient_space(mask: VoxelMask, geometry: PatientGeometry) -> npt.NDArray[np.float64]:
    return sorted_points(geometry.to_patient(np.argwhere(mask.data) + np.asarray(mask.start)))


def sorted_points(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rounded = np.round(points, 3) + 0.0
    return rounded[np.lexsort(rounded.T)]


def segments_of(findings: Findings) -> list[VoxelMask]:
    """What each segment should show: liver tissue, then each lesion."""
    assert findings.region is not None
    lesions = [lesion.mask for lesion in findings.lesions]
    tissue = findings.region.parenchyma.full()
    for mask in lesions:
        tissue &= ~mask.full()
    return [VoxelMask.from_full(tissue), *lesions]


def build_seg(findings: Findings, manifest: Manifest, folder: Path) -> Path:
    (built,) = build_objects(findings, manifest, folder, Settings(), kinds=[ObjectKind.SEGMENTATION])
    return built.path


@pytest.mark.parametrize("storage", STORAGE)
def test_every_segment_lies_where_its_mask_lies(tmp_path: Path, storage: str) -> None:
    written, position = STORAGE[storage]
    manifest = series(tmp_path, written, position)
    geometry = manifest_geometry(manifest)
    findings = made_findings(geometry, manifest_key=manifest.key)
    path = build_seg(findings, manifest, tmp_path)

    for number, mask in enumerate(segments_of(findings), start=1):
        expected = mask_in_patient_space(mask, geometry)
        found = segment_in_patient_space(path, number)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_every_frame_names_the_slice_that_it_covers(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["slices stored downwards"][0])
    findings = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    seg = hd.seg.segread(build_seg(findings, manifest, tmp_path))
    uids = [manifest.instances[ref.instance].sop_instance_uid for ref in manifest.slices]

    for number, mask in enumerate(segments_of(findings), start=1):
        stored = seg.get_pixels_by_source_instance(
            uids, segment_numbers=[number], assert_missing_frames_are_empty=True
        )[..., 0]
        assert np.array_equal(stored.astype(bool), mask.full())


def test_a_voxel_of_a_lesion_is_not_also_liver_since_viewers_lose_what_overlaps(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    geometry = manifest_geometry(manifest)
    findings = made_findings(geometry, manifest_key=manifest.key)
    path = build_seg(findings, manifest, tmp_path)
    parenchyma = findings.region.parenchyma.full()  # type: ignore[union-attr]
    covered = np.logical_or.reduce([lesion.mask.full() for lesion in findings.lesions])
    assert (parenchyma & covered).any()
    expected = mask_in_patient_space(VoxelMask.from_full(parenchyma & ~covered), geometry)
    np.testing.assert_allclose(segment_in_patient_space(path, 1), expected, atol=2e-3)
    assert hd.seg.segread(path).SegmentsOverlap == "NO"


def test_lesions_that_overlap_keep_all_their_voxels_and_the_seg_says_so(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    geometry = manifest_geometry(manifest)
    masks = [ellipsoid(geometry.shape, (6, 15, 20), (2, 5, 5)), ellipsoid(geometry.shape, (7, 17, 22), (2, 5, 5))]
    path = build_seg(made_findings(geometry, manifest_key=manifest.key, lesions=masks), manifest, tmp_path)
    assert hd.seg.segread(path).SegmentsOverlap == "YES"
    for number, mask in enumerate(masks, start=2):
        expected = mask_in_patient_space(mask, geometry)
        np.testing.assert_allclose(segment_in_patient_space(path, number), expected, atol=2e-3)


def test_each_segment_says_what_it_is_and_who_made_it(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    findings = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    split = replace(findings.lesions[1], mask_origin=MaskOrigin.HU_SPLIT)
    seg = hd.seg.segread(build_seg(replace(findings, lesions=(findings.lesions[0], split)), manifest, tmp_path))

    liver, first, second = seg.SegmentSequence
    assert [item.SegmentNumber for item in (liver, first, second)] == [1, 2, 3]
    assert [item.SegmentLabel for item in (liver, first, second)] == ["Liver", "Lesion 1", "Lesion 2"]
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    assert (first.TrackingID, first.TrackingUID) == ("Lesion 1", findings.tracking_uids[0])
    assert second.TrackingUID == findings.tracking_uids[1]
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("made-up", "1.2.3")
    assert "estimated from boxes" not in first.SegmentDescription
    assert "estimated from boxes" in second.SegmentDescription
    assert len({tuple(item.RecommendedDisplayCIELabValue) for item in (liver, first, second)}) == 3
    parameters = first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert parameters == "alpha=1,threshold=0.5"
    assert (seg.ContentDescription, "SourceImageSequence" in seg) == (NOT_FOR_CLINICAL_USE, False)
    anatomy = seg.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    assert (anatomy.FrameLaterality, anatomy.AnatomicRegionSequence[0].CodeValue) == ("U", "10200004")


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (MaskOrigin.DETECTOR, "Voxels given by the detector"),
        (MaskOrigin.HU_SPLIT, "two-class HU split"),
        (MaskOrigin.ELLIPSOID, "ellipsoid inscribed"),
    ],
)
def test_how_a_lesions_voxels_were_decided_is_said(origin: MaskOrigin, words: str) -> None:
    (lesion, _) = made_findings(STORAGE["head first supine"][0]).lesions
    assert words in mask_words(replace(lesion, mask_origin=origin))


def test_a_liver_that_came_as_a_seg_is_named_and_is_another_runs_liver_when_anything_differs(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    findings = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    assert findings.region is not None
    received = replace(findings.region, source=LiverSource.RECEIVED_SEG, reference="1.2.3.4")
    livers = [
        hd.seg.segread(build_seg(replace(findings, region=region), manifest, tmp_path / name)).SegmentSequence[0]
        for name, region in (("own", findings.region), ("received", received))
    ]
    assert ["taken from SEG 1.2.3.4" in liver.SegmentDescription for liver in livers] == [False, True]
    assert livers[0].TrackingUID != livers[1].TrackingUID


def test_frames_are_indexed_by_segment_and_by_slice_from_1_and_masks_stay_as_they_were(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    findings = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    assert findings.region is not None
    before = findings.region.parenchyma.count
    seg = hd.seg.segread(build_seg(findings, manifest, tmp_path))
    assert findings.region.parenchyma.count == before
    pointers = [item.DimensionIndexPointer for item in seg.DimensionIndexSequence]
    assert pointers == [Tag("ReferencedSegmentNumber"), Tag("ImagePositionPatient")]
    organizations = [*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence]
    assert len({item.DimensionOrganizationUID for item in organizations}) == 1
    frames = [
        (
            list(group.FrameContentSequence[0].DimensionIndexValues),
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            float(group.PlanePositionSequence[0].ImagePositionPatient[2]),
        )
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    heights = sorted({height for _, _, height in frames})
    assert [index for index, _, _ in frames] == [[segment, heights.index(height) + 1] for _, segment, height in frames]


def test_a_lesion_in_a_liver_without_tissue_left_is_shown(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    findings = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    assert findings.region is not None
    nothing = VoxelMask.from_full(np.zeros(SHAPE, dtype=np.bool_))
    findings = replace(findings, region=replace(findings.region, parenchyma=nothing))
    assert len(segment_in_patient_space(build_seg(findings, manifest, tmp_path), 2)) == findings.lesions[0].mask.count


def test_colours_begin_with_the_first_and_come_round() -> None:
    colours = [lesion_colour(number) for number in range(1, len(LESION_COLOURS) + 2)]
    assert colours == [*LESION_COLOURS, LESION_COLOURS[0]]


def test_a_liver_alone_is_one_segment(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    geometry = manifest_geometry(manifest)
    findings = made_findings(geometry, manifest_key=manifest.key, lesions=())
    path = build_seg(findings, manifest, tmp_path)
    assert [item.SegmentLabel for item in hd.seg.segread(path).SegmentSequence] == ["Liver"]
    expected = mask_in_patient_space(findings.region.parenchyma, geometry)  # type: ignore[union-attr]
    np.testing.assert_allclose(segment_in_patient_space(path, 1), expected, atol=2e-3)


def test_a_lesion_of_one_voxel_at_the_corner_survives(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    geometry = manifest_geometry(manifest)
    corner = ellipsoid(geometry.shape, (13, 36, 52), (0.5, 0.5, 0.5))
    assert corner.count == 1
    findings = made_findings(geometry, manifest_key=manifest.key, lesions=())
    findings = assign_tracking(replace(findings, lesions=(made_lesion(1, corner, geometry),)))
    path = build_seg(findings, manifest, tmp_path)
    np.testing.assert_allclose(segment_in_patient_space(path, 2), geometry.to_patient([[13, 36, 52]]), atol=2e-3)


def test_masks_of_another_grid_are_refused(tmp_path: Path) -> None:
    manifest = series(tmp_path, STORAGE["head first supine"][0])
    other = axial_geometry((14, 37, 54), SPACING)
    findings = made_findings(other, manifest_key=manifest.key)
    with pytest.raises(ResultError, match="not of this series"):
        build_seg(findings, manifest, tmp_path)
