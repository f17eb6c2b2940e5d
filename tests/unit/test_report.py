"""The structured reports say what was found, where, by whom, and what they are not for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from content_tree import children, concept, descendants, groups, measurement, only, texts, value_code
from m3node import identity
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.mask import VoxelMask
from m3node.intake.series.manifest import Manifest
from m3node.m3.lesion import MaskOrigin
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.build import build_objects
from m3node.results.findings import Findings, Outcome, PredecessorReport
from m3node.results.objects import ObjectKind
from m3node.settings import Settings
from made_findings import made_findings, without_liver
from made_manifest import made_manifest, manifest_geometry

GEOMETRY = axial_geometry((12, 40, 56), (2.5, 0.8, 0.7), origin=(-20, -30, 100))

TRACKING_IDENTIFIER, TRACKING_UID = "112039", "112040"
FINDING, FINDING_SITE, IMAGE_REGION, PURPOSE = "121071", "363698007", "111030", "130400"
LONG_AXIS, SHORT_AXIS, VOLUME, ATTENUATION, DERIVATION = "103339001", "103340004", "118565006", "112031", "121401"

Build = Callable[..., Dataset]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("ct")
    return made_manifest(write_ct_series(folder, np.zeros(GEOMETRY.shape, dtype=np.int16), GEOMETRY, seed="report"))


@pytest.fixture
def findings(manifest: Manifest) -> Findings:
    return made_findings(manifest_geometry(manifest), manifest_key=manifest.key)


@pytest.fixture
def build(manifest: Manifest, tmp_path: Path) -> Build:
    def built(findings: Findings, kind: ObjectKind = ObjectKind.REPORT) -> Dataset:
        (result,) = build_objects(findings, manifest, tmp_path, Settings(), kinds=[kind])
        return pydicom.dcmread(result.path)

    return built


def test_each_lesion_has_a_planar_group_with_identity_finding_and_site(build: Build, findings: Findings) -> None:
    planar = groups(build(findings))
    assert len(planar) == len(findings.lesions)
    for number, (group, uid) in enumerate(zip(planar, findings.tracking_uids, strict=True), start=1):
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"
        assert only(group, TRACKING_IDENTIFIER).TextValue == f"Lesion {number}"
        assert uid == only(group, TRACKING_UID).UID
        assert value_code(only(group, FINDING)) == ("SCT", "52988006")
        assert value_code(only(group, FINDING_SITE)) == ("SCT", "10200004")


def test_the_box_is_a_closed_rectangle_on_the_key_slice(build: Build, findings: Findings, manifest: Manifest) -> None:
    for group, lesion in zip(groups(build(findings)), findings.lesions, strict=True):
        region = only(group, IMAGE_REGION)
        assert (region.ValueType, region.GraphicType) == ("SCOORD", "POLYLINE")
        points = np.array(region.GraphicData).reshape(-1, 2)
        box = lesion.key_box.box
        corners = {(box.c0, box.r0), (box.c1, box.r0), (box.c1, box.r1), (box.c0, box.r1)}
        assert points.shape == (5, 2)
        assert tuple(points[0]) == tuple(points[-1])
        assert {tuple(point) for point in points} == corners
        image = region.ContentSequence[0]
        reference = manifest.instances[manifest.slices[lesion.key_slice].instance]
        assert image.RelationshipType == "SELECTED FROM"
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == reference.sop_instance_uid
        assert value_code(only(group, PURPOSE)) == ("SCT", "75958009")


def test_a_box_that_reaches_over_the_image_is_kept_inside(build: Build, findings: Findings) -> None:
    lesion = findings.lesions[0]
    wide = replace(lesion.key_box, box=replace(lesion.key_box.box, r0=-3.0, c1=999.0))
    group = groups(build(replace(findings, lesions=(replace(lesion, key_box=wide), *findings.lesions[1:]))))[0]
    points = np.array(only(group, IMAGE_REGION).GraphicData).reshape(-1, 2)
    assert points.min() >= 0
    assert points[:, 0].max() == 56


def test_every_measurement_repeats_the_box_it_was_taken_in(build: Build, findings: Findings) -> None:
    for group, _ in zip(groups(build(findings)), findings.lesions, strict=True):
        region = only(group, IMAGE_REGION)
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        assert len(numbers) == 4
        for number in numbers:
            (coordinates,) = [child for child in number.ContentSequence if child.ValueType == "SCOORD"]
            assert coordinates.RelationshipType == "INFERRED FROM"
            assert list(coordinates.GraphicData) == list(region.GraphicData)
            source = coordinates.ContentSequence[0].ReferencedSOPSequence[0]
            assert source == region.ContentSequence[0].ReferencedSOPSequence[0]


@pytest.mark.parametrize("kind", [ObjectKind.REPORT, ObjectKind.VOLUMES])
def test_measurements_have_their_values_and_units(build: Build, findings: Findings, kind: ObjectKind) -> None:
    for group, lesion in zip(groups(build(findings, kind)), findings.lesions, strict=True):
        measured = lesion.measurements
        assert measurement(only(group, LONG_AXIS)) == (round(measured.longest.length_mm, 1), "mm")
        assert measurement(only(group, SHORT_AXIS)) == (round(measured.perpendicular.length_mm, 1), "mm")
        attenuation = {value_code(only(item, DERIVATION))[1]: item for item in children(group, ATTENUATION)}
        assert measurement(attenuation["373098007"]) == (61.2, "[hnsf'U]")
        assert measurement(attenuation["386136009"]) == (9.5, "[hnsf'U]")
        if kind is ObjectKind.VOLUMES:
            assert measurement(only(group, VOLUME)) == (pytest.approx(measured.volume_ml, abs=1e-3), "ml")


def test_each_lesion_has_a_volumetric_group_with_its_segment(
    build: Build, findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    report = build(findings, ObjectKind.VOLUMES)
    (seg,) = build_objects(findings, manifest, tmp_path, Settings(), kinds=[ObjectKind.SEGMENTATION])
    volumetric = groups(report)
    assert len(volumetric) == len(findings.lesions)
    for group, lesion, uid in zip(volumetric, findings.lesions, findings.tracking_uids, strict=True):
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
        assert uid == only(group, TRACKING_UID).UID
        segment = only(group, "121191").ReferencedSOPSequence[0]
        assert segment.ReferencedSOPInstanceUID == seg.sop_instance_uid
        assert segment.ReferencedSegmentNumber == lesion.number + 1
        assert value_code(only(group, FINDING_SITE)) == ("SCT", "10200004")
        extent = lesion.mask.extent
        assert extent is not None
        assert len(children(group, "121233")) == extent[0][1] - extent[0][0]
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {seg.sop_instance_uid, *(item.sop_instance_uid for item in manifest.instances)}


@pytest.mark.parametrize("kind", [ObjectKind.REPORT, ObjectKind.VOLUMES])
def test_a_report_says_language_procedure_observer_and_algorithm(
    build: Build, findings: Findings, kind: ObjectKind
) -> None:
    report = build(findings, kind)
    assert value_code(only(report, "121049"))[1].startswith("en")
    assert value_code(only(report, "121058")) == ("LN", "25045-6")
    assert value_code(only(report, "121005")) == ("DCM", "121007")
    assert only(report, "121012").UID == identity.DEVICE_UID
    for group, _ in zip(groups(report), findings.lesions, strict=True):
        assert only(group, "111001").TextValue == "made-up"
        assert only(group, "111003").TextValue == "1.2.3"
        parameters = [item.TextValue for item in children(group, "111002")]
        assert parameters[:2] == ["alpha=1", "threshold=0.5"]
        assert "made-up-weights" in parameters[2]
    assert NOT_FOR_CLINICAL_USE in texts(report)
    assert "2 liver lesions found." in texts(report)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


def test_the_image_library_describes_the_key_slices(build: Build, findings: Findings, manifest: Manifest) -> None:
    library = only(build(findings), "111028")
    images = [item for item in descendants(library) if item.ValueType == "IMAGE"]
    keys = {lesion.key_slice for lesion in findings.lesions}
    expected = {manifest.instances[manifest.slices[k].instance].sop_instance_uid for k in keys}
    assert {image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in images} == expected
    assert {concept(child) for child in images[0].ContentSequence} >= {"121139", "110910", "112227"}


@pytest.mark.parametrize("kind", [ObjectKind.REPORT, ObjectKind.VOLUMES])
def test_a_lesions_comment_begins_with_its_number_and_size(build: Build, findings: Findings, kind: ObjectKind) -> None:
    # OHIF shows the group's comment as the measurement's name.
    for group, lesion in zip(groups(build(findings, kind)), findings.lesions, strict=True):
        measured = lesion.measurements
        long, short = round(measured.longest.length_mm), round(measured.perpendicular.length_mm)
        assert only(group, "121106").TextValue.startswith(f"Lesion {lesion.number}, {long} x {short} mm. ")


def test_estimated_voxels_are_called_estimated(build: Build, findings: Findings) -> None:
    guessed = replace(findings.lesions[0], mask_origin=MaskOrigin.ELLIPSOID)
    first, second = groups(build(replace(findings, lesions=(guessed, findings.lesions[1]))))
    assert "estimated from boxes" in texts(first)
    assert "estimated from boxes" not in texts(second)


@pytest.mark.parametrize("kind", [ObjectKind.REPORT, ObjectKind.VOLUMES])
def test_no_lesion_is_said_by_a_code(build: Build, manifest: Manifest, kind: ObjectKind) -> None:
    nothing = made_findings(manifest_geometry(manifest), manifest_key=manifest.key, lesions=())
    report = build(nothing, kind)
    (group,) = groups(report)
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert value_code(only(group, "52988006")) == ("SCT", "272519000")
    assert "No liver lesion found." in texts(report)


@pytest.mark.parametrize(("first", "last", "cut"), [(0, 5, True), (5, 12, True), (1, 11, False)])
def test_a_liver_that_the_series_cuts_off_is_said_to_be_searched_in_part(
    build: Build, manifest: Manifest, first: int, last: int, cut: bool
) -> None:
    nothing = made_findings(manifest_geometry(manifest), manifest_key=manifest.key, lesions=())
    assert nothing.region is not None
    liver = np.zeros(nothing.region.parenchyma.shape, dtype=bool)
    liver[first:last, 10:30, 10:30] = True
    region = replace(nothing.region, parenchyma=VoxelMask.from_full(liver))
    assert ("what lies beyond was not searched" in texts(build(replace(nothing, region=region)))) is cut


@pytest.mark.parametrize("kind", [ObjectKind.REPORT, ObjectKind.VOLUMES])
def test_no_liver_is_never_an_absent_lesion(build: Build, findings: Findings, kind: ObjectKind) -> None:
    report = build(without_liver(findings), kind)
    assert not [item for item in descendants(report) if concept(item) == "52988006"]
    assert "No liver found" in texts(report)
    assert "No liver lesion" not in texts(report)


def test_an_incomplete_search_is_never_an_absent_lesion(build: Build, manifest: Manifest) -> None:
    nothing = made_findings(manifest_geometry(manifest), manifest_key=manifest.key, lesions=())
    report = build(replace(nothing, outcome=Outcome.INCOMPLETE, views_read=12))
    assert not [item for item in descendants(report) if concept(item) == "52988006"]
    assert "12 of 30 views" in texts(report)
    assert report.CompletionFlag == "PARTIAL"
    assert "12 of 30" in report.CompletionFlagDescription


def test_a_report_names_its_predecessors(build: Build, findings: Findings) -> None:
    older = PredecessorReport("1.2.3", "1.2.3.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.4.5")
    report = build(replace(findings, predecessors=(older,)))
    study = report.PredecessorDocumentsSequence[0]
    assert study.StudyInstanceUID == "1.2.3"
    series = study.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"


def test_a_measurement_that_could_not_be_taken_is_left_out(build: Build, findings: Findings) -> None:
    lesion = findings.lesions[0]
    blind = replace(lesion, measurements=replace(lesion.measurements, hu_sd=float("nan"), hu_liver_mean=float("nan")))
    group = groups(build(replace(findings, lesions=(blind, *findings.lesions[1:]))))[0]
    assert len(children(group, ATTENUATION)) == 1
    assert "nan" not in texts(group)


@pytest.mark.parametrize(
    ("kind", "sop_class"),
    [
        (ObjectKind.REPORT, "1.2.840.10008.5.1.4.1.1.88.34"),
        (ObjectKind.VOLUMES, "1.2.840.10008.5.1.4.1.1.88.34"),
        (ObjectKind.REPORT_ENHANCED, "1.2.840.10008.5.1.4.1.1.88.22"),
        (ObjectKind.VOLUMES_ENHANCED, "1.2.840.10008.5.1.4.1.1.88.22"),
    ],
)
def test_the_enhanced_variant_says_the_same_in_another_class(
    build: Build, findings: Findings, kind: ObjectKind, sop_class: str
) -> None:
    report = build(findings, kind)
    assert report.SOPClassUID == sop_class
    planar = kind in {ObjectKind.REPORT, ObjectKind.REPORT_ENHANCED}
    same = build(findings, ObjectKind.REPORT if planar else ObjectKind.VOLUMES)
    assert report.ContentSequence == same.ContentSequence
