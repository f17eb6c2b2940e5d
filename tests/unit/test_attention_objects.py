"""Capture and Parametric Map show the attention where it was, and refer to slices and reports as these do to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, ParametricMapStorage

from content_tree import children, groups
from m3node.detectors.protocols import Box2D
from m3node.drawing.heat import SCALE
from m3node.errors import ResultError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.geometry import PatientGeometry
from m3node.intake.series.manifest import Manifest
from m3node.notice import ATTENTION_NOTICE
from m3node.results.attention import picture
from m3node.results.build import build_objects
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.settings import Settings
from made_findings import ellipsoid, made_findings, with_attention
from made_manifest import made_manifest, manifest_geometry

SHAPE, SPACING, ORIGIN = (12, 60, 70), (2.5, 0.9, 0.7), (-20.0, -30.0, 100.0)
GEOMETRIES = {
    "head first": axial_geometry(SHAPE, SPACING, origin=ORIGIN),
    "feet first": axial_geometry(SHAPE, SPACING, origin=ORIGIN, row=(-1.0, 0.0, 0.0), upwards=False),
    "turned table": axial_geometry(SHAPE, SPACING, origin=ORIGIN, row=(0.8, 0.6, 0.0), column=(-0.6, 0.8, 0.0)),
}
PICTURES = (ObjectKind.ATTENTION_CAPTURE, ObjectKind.ATTENTION_MAP)
EXPLANATION = "130401"


def series(folder: Path, geometry: PatientGeometry) -> Manifest:
    hu = np.full(geometry.shape, -1000, dtype=np.int16)
    hu[ellipsoid(geometry.shape, (6, 30, 35), (20, 28, 33)).full()] = 60
    return made_manifest(write_ct_series(folder / "ct", hu, geometry, seed="attention"))


def findings_of(manifest: Manifest, **changes: object) -> Findings:
    made = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    return with_attention(replace(made, **changes))


def built(findings: Findings, manifest: Manifest, folder: Path) -> dict[ObjectKind, Dataset]:
    objects = build_objects(findings, manifest, folder / "out", Settings(), kinds=list(ObjectKind))
    return {item.kind: pydicom.dcmread(item.path) for item in objects}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return series(tmp_path, GEOMETRIES["head first"])


@pytest.mark.parametrize("how", GEOMETRIES)
def test_a_point_of_the_patient_has_the_same_value_in_the_map_and_in_the_grid(how: str, tmp_path: Path) -> None:
    manifest = series(tmp_path, GEOMETRIES[how])
    geometry = manifest_geometry(manifest)
    findings = findings_of(manifest)
    # Cells of 9 × 7 voxels have a voxel in their middle; the view reaches beyond the image above and below.
    area = Box2D(-7.0, 3.0, -7.0 + 8 * 9.0, 3.0 + 8 * 7.0)
    shown = tuple(replace(item, grid=replace(item.grid, area=area)) for item in findings.attention)
    build_objects(replace(findings, attention=shown), manifest, tmp_path / "out", Settings())
    stored = hd.imread(tmp_path / "out" / ObjectKind.ATTENTION_MAP.file_name)
    assert stored.number_of_frames == len(shown) == 2
    shared = stored.SharedFunctionalGroupsSequence[0]
    orientation = [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    (mapping,) = shared.RealWorldValueMappingSequence
    checked = 0
    for number, item in enumerate(shown, start=1):
        frame = stored.PerFrameFunctionalGroupsSequence[number - 1]
        position = [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        to_pixel = hd.spatial.ReferenceToPixelTransformer(position, orientation, spacing)
        pixels = stored.pixel_array[number - 1] * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
        for (i, j), value in np.ndenumerate(item.grid.values):
            # Areas are at voxel edges, the geometry is at voxel centres.
            middle = (item.slice_index, area.r0 + 9 * i + 4, area.c0 + 7 * j + 3)
            c, r, off = to_pixel(geometry.to_patient([middle]))[0]
            assert off == pytest.approx(0.0, abs=1e-3)
            if 0 <= r < SHAPE[1]:
                assert pixels[r, c] == pytest.approx(value, rel=1e-6)
                checked += 1
    assert checked == 2 * 6 * 8


def test_the_map_says_what_its_values_are(manifest: Manifest, tmp_path: Path) -> None:
    findings = findings_of(manifest)
    ds = built(findings, manifest, tmp_path)[ObjectKind.ATTENTION_MAP]
    assert ds.SOPClassUID == ParametricMapStorage
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    (quantity,) = mapping.QuantityDefinitionSequence
    assert quantity.ConceptCodeSequence[0].CodingSchemeDesignator == "99M3NODE"
    assert [item.CodingSchemeDesignator for item in ds.CodingSchemeIdentificationSequence] == ["99M3NODE"]
    labels = [group.FrameContentSequence[0].FrameLabel for group in ds.PerFrameFunctionalGroupsSequence]
    assert labels == [f"Lesion {item.lesion}" for item in findings.attention]
    voi = ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    peak = max(item.grid.values.max() for item in findings.attention)
    assert float(voi.WindowWidth) == pytest.approx(peak)


def test_the_capture_has_a_colour_frame_for_each_and_no_patient_burned_in(manifest: Manifest, tmp_path: Path) -> None:
    findings = findings_of(manifest)
    ds = built(findings, manifest, tmp_path)[ObjectKind.ATTENTION_CAPTURE]
    assert ds.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert (ds.BurnedInAnnotation, ds.PhotometricInterpretation, ds.NumberOfFrames) == ("NO", "RGB", 2)
    assert ATTENTION_NOTICE in ds.ImageComments
    assert "Lesion 1, its key slice" in ds.ImageComments
    pixels = ds.pixel_array
    assert pixels.shape == (2, ds.Rows, ds.Columns, 3)
    plain = pixels[:, picture.HEADER : -picture.FOOTER, picture.GAP : picture.GAP + picture.TILE_WIDTH].astype(int)
    left = 2 * picture.GAP + picture.TILE_WIDTH
    mapped = pixels[:, picture.HEADER : -picture.FOOTER, left : left + picture.TILE_WIDTH].astype(int)
    changed = np.abs(plain - mapped).max(axis=3) > 8
    assert 0.2 < changed.mean() < 0.95
    # The plain one is grey but for the lines; the mapped one has the scale's colours.
    assert (np.ptp(plain, axis=3) > 20).mean() < 0.15
    assert (np.ptp(mapped, axis=3) > 20).mean() > 0.2


def test_the_hottest_place_of_the_picture_is_where_the_grid_is_hottest(manifest: Manifest, tmp_path: Path) -> None:
    findings = findings_of(manifest)
    hot = np.zeros((8, 8), dtype=np.float32)
    hot[5, 2] = 0.02
    key = findings.attention[0]
    findings = replace(findings, attention=(replace(key, grid=replace(key.grid, values=hot)),))
    pixels = built(findings, manifest, tmp_path)[ObjectKind.ATTENTION_CAPTURE].pixel_array.astype(float)
    left = 2 * picture.GAP + picture.TILE_WIDTH
    tile = pixels[picture.HEADER : -picture.FOOTER, left : left + picture.TILE_WIDTH]
    # Yellow is what neither grey nor lines are.
    yellow = tile[..., :2].min(axis=2) - tile[..., 2]
    assert SCALE[-1, :2].min() - int(SCALE[-1, 2]) > 100
    r, c = np.unravel_index(np.argmax(yellow), yellow.shape)
    area = key.grid.area
    row, column = area.r0 + 5.5 / 8 * (area.r1 - area.r0), area.c0 + 2.5 / 8 * (area.c1 - area.c0)
    # All 60 × 70 voxels are shown: the body reaches to every edge of this series.
    assert r / tile.shape[0] == pytest.approx(row / SHAPE[1], abs=0.03)
    assert c / tile.shape[1] == pytest.approx(column / SHAPE[2], abs=0.03)


def test_pictures_and_reports_refer_to_each_other_and_to_the_slices(manifest: Manifest, tmp_path: Path) -> None:
    findings = findings_of(manifest)
    objects = built(findings, manifest, tmp_path)
    reports = {objects[kind].SOPInstanceUID: objects[kind] for kind in objects if kind.value.endswith(".sr")}
    sources = [manifest.instances[item.slice_index].sop_instance_uid for item in findings.attention]
    for kind in PICTURES:
        ds = objects[kind]
        assert {item.ReferencedSOPInstanceUID for item in ds.ReferencedInstanceSequence} == set(reports)
        listed = {
            (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
            for series in ds.ReferencedSeriesSequence
            for item in series.ReferencedInstanceSequence
        }
        assert listed == {(report.SeriesInstanceUID, uid) for uid, report in reports.items()} | {
            (manifest.stack.series_instance_uid, uid) for uid in sources
        }
    assert [item.ReferencedSOPInstanceUID for item in objects[PICTURES[0]].SourceImageSequence] == sources
    for group, uid in zip(objects[PICTURES[1]].PerFrameFunctionalGroupsSequence, sources, strict=True):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == uid
    for report in reports.values():
        for group in groups(report):
            (tracking,) = children(group, "112039")
            number = [f"Lesion {item.lesion}" for item in findings.attention].index(tracking.TextValue) + 1
            named = [item.ReferencedSOPSequence[0] for item in children(group, EXPLANATION)]
            assert [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in named] == [
                (objects[kind].SOPInstanceUID, number) for kind in PICTURES
            ]
        evidence = {
            item.ReferencedSOPInstanceUID
            for study in report.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert {objects[kind].SOPInstanceUID for kind in PICTURES} <= evidence


@pytest.mark.parametrize(
    ("outcome", "words"), [(Outcome.NO_LESION, "No lesion found"), (Outcome.INCOMPLETE, "Search incomplete")]
)
def test_without_a_lesion_the_statement_names_the_one_frame(
    manifest: Manifest, tmp_path: Path, outcome: Outcome, words: str
) -> None:
    made = made_findings(manifest_geometry(manifest), manifest_key=manifest.key, lesions=(), outcome=outcome)
    objects = built(with_attention(made), manifest, tmp_path)
    (group,) = groups(objects[ObjectKind.REPORT])
    assert len(children(group, EXPLANATION)) == 2
    capture = objects[ObjectKind.ATTENTION_CAPTURE]
    assert (capture.NumberOfFrames, "FrameIncrementPointer" in capture) == (1, False)
    assert f"1: {words}: slice with the largest liver." in capture.ImageComments


def test_two_lesions_of_one_slice_have_a_frame_each_with_an_index_of_its_own(
    manifest: Manifest, tmp_path: Path
) -> None:
    geometry = manifest_geometry(manifest)
    masks = [ellipsoid(geometry.shape, (6, 25, column), (2, 4, 4)) for column in (18, 40)]
    findings = with_attention(made_findings(geometry, manifest_key=manifest.key, lesions=masks))
    objects = built(findings, manifest, tmp_path)
    frames = objects[ObjectKind.ATTENTION_MAP].PerFrameFunctionalGroupsSequence
    indices = [list(frame.FrameContentSequence[0].DimensionIndexValues) for frame in frames]
    assert indices == [[1, 1], [1, 2]]
    assert len(objects[ObjectKind.ATTENTION_CAPTURE].SourceImageSequence) == 1


def test_without_attention_nothing_is_built_of_it_and_no_report_speaks_of_it(
    manifest: Manifest, tmp_path: Path
) -> None:
    made = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    objects = built(made, manifest, tmp_path)
    assert not set(PICTURES) & set(objects)
    assert all(children(group, EXPLANATION) == [] for group in groups(objects[ObjectKind.REPORT]))


def test_a_report_that_is_built_alone_names_no_picture_that_there_will_not_be(
    manifest: Manifest, tmp_path: Path
) -> None:
    (item,) = build_objects(findings_of(manifest), manifest, tmp_path, Settings(), kinds=[ObjectKind.REPORT])
    assert all(children(group, EXPLANATION) == [] for group in groups(pydicom.dcmread(item.path)))


def test_the_same_findings_give_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    findings = findings_of(manifest)
    for name in ("one", "other"):
        build_objects(findings, manifest, tmp_path / name, Settings(), kinds=PICTURES)
    for kind in PICTURES:
        assert (tmp_path / "one" / kind.file_name).read_bytes() == (tmp_path / "other" / kind.file_name).read_bytes()


def test_a_key_slice_that_is_gone_is_said(manifest: Manifest, tmp_path: Path) -> None:
    findings = findings_of(manifest)
    gone = manifest.instances[findings.attention[1].slice_index]
    (Path(manifest.root) / gone.path).unlink()
    with pytest.raises(ResultError, match=gone.sop_instance_uid):
        build_objects(findings, manifest, tmp_path / "out", Settings(), kinds=[ObjectKind.ATTENTION_CAPTURE])


@pytest.mark.parametrize(
    "said", [("01", 8.5, "ISO_15444_1"), ("01", None, "ISO_15444_1"), ("01", None, None), ("00", None, None)], ids=str
)
def test_what_was_lost_in_the_source_is_said_of_every_picture_and_mask(
    tmp_path: Path, said: tuple[str, float | None, str | None]
) -> None:
    """Also where the source does not say how much, or how; an empty ratio is none."""
    manifest = series(tmp_path, GEOMETRIES["head first"])
    path = Path(manifest.root) / manifest.instances[0].path
    image = pydicom.dcmread(path)
    image.LossyImageCompression, image.LossyImageCompressionRatio, image.LossyImageCompressionMethod = said
    image.save_as(path)
    shown = (*PICTURES, ObjectKind.SEGMENTATION)
    for item in build_objects(findings_of(manifest), manifest, tmp_path / "out", Settings(), kinds=shown):
        ds = pydicom.dcmread(item.path)
        assert tuple(ds.get(f"LossyImageCompression{what}") for what in ("", "Ratio", "Method")) == said, item.kind
        assert ("LossyImageCompressionRatio" in ds) == (said[1] is not None)
