"""Capture and map refer to slices and reports as these do to them, and nothing to what there will not be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
)

from attended import ORIGIN, PICTURES, SPACING, built, codes_of, findings_of, series
from content_tree import children, groups
from m3node.intake.series.manifest import Manifest
from m3node.results.build import build_objects
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.results.source import SourceSeries, read_source
from m3node.settings import Settings
from made_findings import made_findings, with_attention
from made_manifest import manifest_geometry

EXPLANATION = "130401"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return series(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def findings(manifest: Manifest) -> Findings:
    return findings_of(manifest)


@pytest.fixture(scope="module")
def objects(
    findings: Findings, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> dict[ObjectKind, Dataset]:
    return built(findings, manifest, tmp_path_factory.mktemp("objects"))


def references(ds: Dataset) -> Iterator[Dataset]:
    """Every item, at any depth, that names an instance."""
    for element in ds:
        for item in element.value if element.VR == "SQ" else ():
            if "ReferencedSOPInstanceUID" in item:
                yield item
            yield from references(item)


def test_whatever_names_an_object_names_its_kind_and_series_too(
    manifest: Manifest, objects: dict[ObjectKind, Dataset]
) -> None:
    known = {ds.SOPInstanceUID: (ds.SOPClassUID, ds.SeriesInstanceUID) for ds in objects.values()}
    series_uid = manifest.stack.series_instance_uid
    known |= {item.sop_instance_uid: (item.sop_class_uid, series_uid) for item in manifest.instances}
    for kind, ds in objects.items():
        named = list(references(ds))
        assert named, kind
        for item in named:
            assert item.ReferencedSOPClassUID == known[item.ReferencedSOPInstanceUID][0], kind
        studies = [*ds.get("CurrentRequestedProcedureEvidenceSequence", []), ds]
        for listed in (item for study in studies for item in study.get("ReferencedSeriesSequence", [])):
            for item in listed.get("ReferencedSOPSequence", listed.get("ReferencedInstanceSequence", [])):
                assert listed.SeriesInstanceUID == known[item.ReferencedSOPInstanceUID][1], kind


def test_pictures_and_reports_refer_to_each_other_and_to_the_slices(
    findings: Findings, manifest: Manifest, objects: dict[ObjectKind, Dataset]
) -> None:
    reports = {objects[kind].SOPInstanceUID: objects[kind] for kind in objects if kind.value.endswith(".sr")}
    sources = [manifest.instances[item.slice_index].sop_instance_uid for item in findings.attention]
    for kind in PICTURES:
        ds = objects[kind]
        assert {item.ReferencedSOPInstanceUID for item in ds.ReferencedInstanceSequence} == set(reports)
        for item in ds.ReferencedInstanceSequence:
            assert codes_of(item.PurposeOfReferenceCodeSequence) == [("DCM", "126000")]
        listed = {
            (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
            for series in ds.ReferencedSeriesSequence
            for item in series.ReferencedInstanceSequence
        }
        assert listed == {(report.SeriesInstanceUID, uid) for uid, report in reports.items()} | {
            (manifest.stack.series_instance_uid, uid) for uid in sources
        }
    assert [item.ReferencedSOPInstanceUID for item in objects[PICTURES[0]].SourceImageSequence] == sources
    purposes = [codes_of(item.PurposeOfReferenceCodeSequence) for item in objects[PICTURES[0]].SourceImageSequence]
    assert purposes == [[("DCM", "121322")]] * 2
    assert "SourceImageSequence" not in objects[PICTURES[1]]  # it would name one slice only
    for group, uid in zip(objects[PICTURES[1]].PerFrameFunctionalGroupsSequence, sources, strict=True):
        (derivation,) = group.DerivationImageSequence
        (image,) = derivation.SourceImageSequence
        assert (image.ReferencedSOPInstanceUID, image.SpatialLocationsPreserved) == (uid, "YES")
        assert codes_of(image.PurposeOfReferenceCodeSequence) == [("DCM", "121322")]
        assert codes_of(derivation.DerivationCodeSequence) == [("DCM", "112187")]
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
    (frame,) = objects[ObjectKind.ATTENTION_MAP].PerFrameFunctionalGroupsSequence
    assert frame.FrameContentSequence[0].FrameLabel == "Largest liver"


def test_of_a_multi_frame_source_the_frames_are_named_and_the_instance_once(
    findings: Findings, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slices of the series as if one instance held them all, the first frame being number 1."""
    uid, kind = "1.2.3.4", EnhancedCTImageStorage

    def as_one(of: Manifest) -> SourceSeries:
        source = read_source(of)
        slices = tuple(
            replace(item, sop_class_uid=kind, sop_instance_uid=uid, frame_number=k)
            for k, item in enumerate(source.slices, start=1)
        )
        return replace(source, slices=slices, instances=((kind, uid),))

    monkeypatch.setattr("m3node.results.build.read_source", as_one)
    kinds = (*PICTURES, ObjectKind.SEGMENTATION)
    objects = {item.kind: item for item in build_objects(findings, manifest, tmp_path, Settings(), kinds=kinds)}
    capture, values, masks = (pydicom.dcmread(objects[kind].path) for kind in kinds)
    frames = [item.slice_index + 1 for item in findings.attention]
    assert [item.ReferencedFrameNumber for item in capture.SourceImageSequence] == frames
    for ds in (values, masks):
        for group in ds.PerFrameFunctionalGroupsSequence:
            (image,) = group.DerivationImageSequence[0].SourceImageSequence
            assert (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID) == (kind, uid)
            height = group.PlanePositionSequence[0].ImagePositionPatient[2] - ORIGIN[2]
            assert image.ReferencedFrameNumber == 1 + round(height / SPACING[0])
    for ds in (capture, values):
        (source,) = ds.ReferencedSeriesSequence
        assert [item.ReferencedSOPInstanceUID for item in source.ReferencedInstanceSequence] == [uid]


def test_pictures_that_are_built_without_reports_name_none(
    findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    for item in build_objects(findings, manifest, tmp_path, Settings(), kinds=PICTURES):
        ds = pydicom.dcmread(item.path)
        assert "ReferencedInstanceSequence" not in ds
        (source,) = ds.ReferencedSeriesSequence
        assert source.SeriesInstanceUID == manifest.stack.series_instance_uid


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
