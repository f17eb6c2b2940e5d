"""Others' validators find no error in any object, on made and on real series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from content_tree import groups, only
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.folder.inputs import survey
from m3node.intake.series.manifest import Manifest
from m3node.m3.lesion import MaskOrigin
from m3node.results.build import DEFAULT_KINDS, build_objects
from m3node.results.findings import Findings, Outcome, PredecessorReport
from m3node.results.objects import ObjectKind, ResultObject
from m3node.results.succession import assign_tracking
from m3node.settings import Settings
from made_findings import ellipsoid, made_findings, made_lesion, with_attention, without_liver
from made_manifest import made_manifest, manifest_geometry
from validators import PIXELMED_JAR, dciodvfy_errors, dcmpschk_says, pixelmed_errors

Program = Callable[[str], str]

ANY_LENGTH = Settings.model_validate({"eligibility": {"min_slices": 2}})
REPORTS = (ObjectKind.REPORT, ObjectKind.VOLUMES)
ENHANCED = (ObjectKind.REPORT_ENHANCED, ObjectKind.VOLUMES_ENHANCED)


def only_manifest(folder: Path) -> Manifest:
    (manifest,) = survey(folder, ANY_LENGTH).manifests
    return manifest


@pytest.fixture
def made(tmp_path: Path) -> Manifest:
    geometry = axial_geometry((12, 64, 80), (2.5, 0.8, 0.7), origin=(-20, -30, 100))
    write_ct_series(tmp_path / "ct", np.zeros(geometry.shape, np.int16), geometry, seed="validated")
    return only_manifest(tmp_path / "ct")


def findings_of(manifest: Manifest) -> Findings:
    return with_attention(made_findings(manifest_geometry(manifest), manifest_key=manifest.key))


def assert_valid(program: Program, objects: tuple[ResultObject, ...]) -> None:
    for item in objects:
        assert dciodvfy_errors(program, item.path) == [], item.kind
        if item.kind is ObjectKind.PRESENTATION:
            said = dcmpschk_says(program, item.path)
            assert "Test passed." in said, said


def assert_templates_valid(program: Program, objects: tuple[ResultObject, ...]) -> None:
    if not PIXELMED_JAR.exists():
        program("pixelmed.jar")
    segs = [item.path for item in objects if item.kind is ObjectKind.SEGMENTATION]
    reports = [item.path for item in objects if item.kind in {*REPORTS, *ENHANCED}]
    assert pixelmed_errors(program, "iod", segs) == {path: [] for path in segs}
    assert pixelmed_errors(program, "sr", reports) == {path: [] for path in reports}


@pytest.mark.slow
def test_every_kind_of_object_is_valid(made: Manifest, program: Program, tmp_path: Path) -> None:
    findings = findings_of(made)
    origins = [MaskOrigin.HU_SPLIT, MaskOrigin.ELLIPSOID]
    lesions = tuple(
        replace(lesion, mask_origin=origin) for lesion, origin in zip(findings.lesions, origins, strict=True)
    )
    older = PredecessorReport(made.study_instance_uid, "1.2.3.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.4.5")
    findings = replace(findings, lesions=lesions, predecessors=(older,))
    objects = build_objects(findings, made, tmp_path, Settings(), kinds=list(ObjectKind))
    assert len(objects) == len(ObjectKind)
    assert_valid(program, objects)
    assert_templates_valid(program, objects)


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [Outcome.NO_LESION, Outcome.NO_LIVER, Outcome.INCOMPLETE])
def test_an_answer_without_a_lesion_is_valid(
    made: Manifest, program: Program, tmp_path: Path, outcome: Outcome
) -> None:
    findings = made_findings(manifest_geometry(made), manifest_key=made.key, lesions=())
    findings = without_liver(findings) if outcome is Outcome.NO_LIVER else with_attention(findings)
    findings = replace(findings, outcome=outcome, views_read=12)
    objects = build_objects(findings, made, tmp_path, Settings(), kinds=[*DEFAULT_KINDS, *ENHANCED])
    assert_valid(program, objects)
    assert_templates_valid(program, tuple(item for item in objects if item.kind is ObjectKind.REPORT))


def test_a_name_in_japanese_is_valid(program: Program, tmp_path: Path) -> None:
    # Pixelmed's validator takes every letter outside ASCII for an error in a name, so only dciodvfy is asked.
    geometry = axial_geometry((12, 64, 80), (2.5, 0.8, 0.7))
    name = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    write_ct_series(tmp_path / "ct", np.zeros(geometry.shape, np.int16), geometry, seed="name", attributes=name)
    manifest = only_manifest(tmp_path / "ct")
    assert_valid(program, build_objects(findings_of(manifest), manifest, tmp_path, Settings()))


def test_a_series_that_says_no_slice_thickness_gets_valid_objects(program: Program, tmp_path: Path) -> None:
    geometry = axial_geometry((12, 64, 80), (2.5, 0.8, 0.7))
    empty = {"SliceThickness": None}
    write_ct_series(tmp_path / "ct", np.zeros(geometry.shape, np.int16), geometry, seed="thickness", attributes=empty)
    manifest = only_manifest(tmp_path / "ct")
    objects = build_objects(findings_of(manifest), manifest, tmp_path, Settings())
    assert_valid(program, objects)
    seg = pydicom.dcmread(next(item.path for item in objects if item.kind is ObjectKind.SEGMENTATION))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (float(measures.SliceThickness), float(measures.SpacingBetweenSlices)) == (2.5, 2.5)


@pytest.mark.slow
def test_objects_on_a_real_series_are_valid(test_data: Path, program: Program, tmp_path: Path) -> None:
    manifest = only_manifest(test_data / "ct_liver_j2k")
    geometry = manifest_geometry(manifest)
    masks = [
        ellipsoid(geometry.shape, (10, 250, 150), (4, 12, 15)),
        ellipsoid(geometry.shape, (14, 300, 200), (3, 8, 8)),
    ]
    findings = with_attention(made_findings(geometry, manifest_key=manifest.key, lesions=masks))
    objects = build_objects(findings, manifest, tmp_path, Settings())
    assert_valid(program, objects)
    assert_templates_valid(program, objects)


@pytest.mark.parametrize("name", ["eCT_Supplemental.dcm", "legacy_converted_24x38x3.dcm"])
def test_objects_on_a_multiframe_series_are_valid_and_name_frames(
    test_data: Path, program: Program, tmp_path: Path, name: str
) -> None:
    manifest = made_manifest([test_data / "ct_enhanced" / name])
    geometry = manifest_geometry(manifest)
    n, rows, columns = geometry.shape
    mask = ellipsoid(geometry.shape, ((n - 1) / 2, rows * 0.4, columns * 0.3), (n, rows * 0.1, columns * 0.12))
    findings = made_findings(geometry, manifest_key=manifest.key, lesions=())
    findings = replace(findings, outcome=Outcome.LESIONS, lesions=(made_lesion(1, mask, geometry),))
    findings = with_attention(assign_tracking(findings))
    objects = build_objects(findings, manifest, tmp_path, Settings())
    assert_valid(program, objects)
    path = next(item.path for item in objects if item.kind is ObjectKind.SEGMENTATION)
    frames = [ref.frame + 1 for ref in manifest.slices]
    stored = hd.seg.segread(path).get_pixels_by_source_frame(
        manifest.instances[0].sop_instance_uid,
        frames,
        segment_numbers=[2],
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(stored[..., 0].astype(bool), mask.full())
    (group,) = groups(pydicom.dcmread(next(item.path for item in objects if item.kind is ObjectKind.REPORT)))
    image = only(group, "111030").ContentSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == manifest.instances[0].sop_instance_uid
    number = manifest.slices[findings.lesions[0].key_slice].frame + 1
    assert image.ReferencedFrameNumber == number
    capture = pydicom.dcmread(next(item.path for item in objects if item.kind is ObjectKind.ATTENTION_CAPTURE))
    assert [item.ReferencedFrameNumber for item in capture.SourceImageSequence] == [number]


def test_the_validators_would_see_an_error(made: Manifest, program: Program, tmp_path: Path) -> None:
    objects = {item.kind: item.path for item in build_objects(findings_of(made), made, tmp_path, Settings())}
    report = pydicom.dcmread(objects[ObjectKind.REPORT])
    report.ContentSequence = [item for item in report.ContentSequence if item.ValueType != "CONTAINER"]
    del report.CompletionFlag
    report.save_as(tmp_path / "broken.sr.dcm")
    state = pydicom.dcmread(objects[ObjectKind.PRESENTATION])
    del state.PresentationCreationDate
    state.save_as(tmp_path / "broken.pr.dcm")
    assert dciodvfy_errors(program, tmp_path / "broken.sr.dcm")
    assert "Test passed." not in dcmpschk_says(program, tmp_path / "broken.pr.dcm")
    (errors,) = pixelmed_errors(program, "sr", [tmp_path / "broken.sr.dcm"]).values()
    assert errors
