"""Capture and Parametric Map say what was measured and where, and what they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    ParametricMapStorage,
)

from attended import GEOMETRIES, PICTURES, SHAPE, built, codes_of, findings_of, series
from m3node.detectors.protocols import Box2D
from m3node.errors import ResultError
from m3node.intake.series.manifest import Manifest
from m3node.results.build import build_objects
from m3node.results.findings import Findings
from m3node.results.objects import ObjectKind
from m3node.settings import Settings
from made_findings import ellipsoid, made_findings, with_attention
from made_manifest import manifest_geometry


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


def test_the_map_says_what_its_values_are(findings: Findings, objects: dict[ObjectKind, Dataset]) -> None:
    ds = objects[ObjectKind.ATTENTION_MAP]
    assert ds.SOPClassUID == ParametricMapStorage
    assert (ds.RecognizableVisualFeatures, ds.BodyPartExamined) == ("NO", "LIVER")
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    ends = mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped
    assert ends == (0.0, 1.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    (quantity,) = mapping.QuantityDefinitionSequence
    assert quantity.ConceptCodeSequence[0].CodingSchemeDesignator == "99M3NODE"
    assert [item.CodingSchemeDesignator for item in ds.CodingSchemeIdentificationSequence] == ["99M3NODE"]
    labels = [group.FrameContentSequence[0].FrameLabel for group in ds.PerFrameFunctionalGroupsSequence]
    assert labels == [f"Lesion {item.lesion}" for item in findings.attention]
    voi = ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    peak = max(item.grid.values.max() for item in findings.attention)
    assert (float(voi.WindowWidth), float(voi.WindowCenter)) == pytest.approx((peak, peak / 2))
    # A width below 1 is allowed for no other function (PS3.3 C.11.2.1.3.2).
    assert voi.VOILUTFunction == "LINEAR_EXACT"
    (anatomy,) = ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    assert (anatomy.FrameLaterality, codes_of(anatomy.AnatomicRegionSequence)) == ("U", [("SCT", "10200004")])
    pointers = [(item.DimensionIndexPointer, item.FunctionalGroupPointer) for item in ds.DimensionIndexSequence]
    assert pointers == [
        (Tag("ImagePositionPatient"), Tag("PlanePositionSequence")),
        (Tag("FrameLabel"), Tag("FrameContentSequence")),
    ]
    organizations = [*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence]
    assert len({item.DimensionOrganizationUID for item in organizations}) == 1


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
    source, *_ = objects[ObjectKind.ATTENTION_MAP].ReferencedSeriesSequence
    assert len(source.ReferencedInstanceSequence) == 1
    assert len(objects[ObjectKind.ATTENTION_CAPTURE].SourceImageSequence) == 1


def test_indices_have_no_gap_where_a_lesion_has_no_attention(
    findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    second = replace(findings, attention=findings.attention[1:])
    (item,) = build_objects(second, manifest, tmp_path, Settings(), kinds=[ObjectKind.ATTENTION_MAP])
    (frame,) = pydicom.dcmread(item.path).PerFrameFunctionalGroupsSequence
    (content,) = frame.FrameContentSequence
    assert (content.FrameLabel, list(content.DimensionIndexValues)) == ("Lesion 2", [1, 1])


def test_the_same_findings_give_the_same_bytes(findings: Findings, manifest: Manifest, tmp_path: Path) -> None:
    for name in ("one", "other"):
        build_objects(findings, manifest, tmp_path / name, Settings(), kinds=PICTURES)
    for kind in PICTURES:
        assert (tmp_path / "one" / kind.file_name).read_bytes() == (tmp_path / "other" / kind.file_name).read_bytes()


def test_a_key_slice_that_is_gone_is_said(tmp_path: Path) -> None:
    manifest = series(tmp_path)
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
    manifest = series(tmp_path)
    path = Path(manifest.root) / manifest.instances[0].path
    image = pydicom.dcmread(path)
    image.LossyImageCompression, image.LossyImageCompressionRatio, image.LossyImageCompressionMethod = said
    image.save_as(path)
    shown = (*PICTURES, ObjectKind.SEGMENTATION)
    for item in build_objects(findings_of(manifest), manifest, tmp_path / "out", Settings(), kinds=shown):
        ds = pydicom.dcmread(item.path)
        assert tuple(ds.get(f"LossyImageCompression{what}") for what in ("", "Ratio", "Method")) == said, item.kind
        assert ("LossyImageCompressionRatio" in ds) == (said[1] is not None)
