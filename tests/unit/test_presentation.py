"""The presentation state draws boxes, labels and the notice on the key slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series.manifest import Manifest
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.build import build_objects
from m3node.results.findings import Findings
from m3node.results.objects import ObjectKind
from m3node.settings import Settings
from made_findings import ellipsoid, made_findings, without_liver
from made_manifest import made_manifest, manifest_geometry

GEOMETRY = axial_geometry((12, 40, 56), (2.5, 0.8, 0.7), origin=(-20, -30, 100))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    hu = np.zeros(GEOMETRY.shape, dtype=np.int16)
    return made_manifest(write_ct_series(tmp_path / "ct", hu, GEOMETRY, seed="presentation"))


@pytest.fixture
def findings(manifest: Manifest) -> Findings:
    return made_findings(manifest_geometry(manifest), manifest_key=manifest.key)


def built(findings: Findings, manifest: Manifest, folder: Path) -> Dataset:
    (result,) = build_objects(findings, manifest, folder, Settings(), kinds=[ObjectKind.PRESENTATION])
    return pydicom.dcmread(result.path)


def uid_of_slice(manifest: Manifest, k: int) -> str:
    return manifest.instances[manifest.slices[k].instance].sop_instance_uid


def test_each_lesion_has_its_box_and_label_on_its_key_slice(
    findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    state = built(findings, manifest, tmp_path)
    drawn = [item for item in state.GraphicAnnotationSequence if item.GraphicLayer == "LESIONS"]
    graphics = {
        graphic.TrackingUID: (item.ReferencedImageSequence[0].ReferencedSOPInstanceUID, graphic)
        for item in drawn
        for graphic in item.GraphicObjectSequence
    }
    labels = {text.TrackingUID: text for item in drawn for text in item.TextObjectSequence}
    for lesion, uid in zip(findings.lesions, findings.tracking_uids, strict=True):
        image, graphic = graphics[uid]
        assert image == uid_of_slice(manifest, lesion.key_slice)
        assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
        points = np.array(graphic.GraphicData).reshape(-1, 2)
        box = lesion.key_box.box
        assert points.shape == (5, 2)
        assert tuple(points.min(axis=0)) == (box.c0, box.r0)
        assert tuple(points.max(axis=0)) == (box.c1, box.r1)
        assert labels[uid].UnformattedTextValue == f"{lesion.number}: {lesion.measurements.longest.length_mm:.0f} mm"


def test_only_key_slices_are_shown_and_each_carries_outcome_and_notice(
    findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    state = built(findings, manifest, tmp_path)
    keys = {uid_of_slice(manifest, lesion.key_slice) for lesion in findings.lesions}
    referenced = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} == keys
    notices = {
        item.ReferencedImageSequence[0].ReferencedSOPInstanceUID: item.TextObjectSequence[0].UnformattedTextValue
        for item in state.GraphicAnnotationSequence
        if item.GraphicLayer == "NOTICE"
    }
    assert set(notices) == keys
    for text in notices.values():
        assert "2 liver lesions found." in text
        assert NOT_FOR_CLINICAL_USE in text


def test_grey_values_are_hu_in_a_soft_tissue_window(findings: Findings, manifest: Manifest, tmp_path: Path) -> None:
    state = built(findings, manifest, tmp_path)
    assert (float(state.RescaleSlope), float(state.RescaleIntercept)) == (1.0, -1024.0)
    window = state.SoftcopyVOILUTSequence[0]
    assert (float(window.WindowCenter), float(window.WindowWidth)) == (60.0, 400.0)
    assert state.PresentationCreationDate == "20260304"
    assert state.BodyPartExamined == "LIVER"


def test_the_patient_keeps_his_shape_where_pixels_are_not_square(
    findings: Findings, manifest: Manifest, tmp_path: Path
) -> None:
    (area,) = built(findings, manifest, tmp_path).DisplayedAreaSelectionSequence
    assert [float(value) for value in area.PresentationPixelSpacing] == [0.8, 0.7]
    assert "PresentationPixelAspectRatio" not in area
    assert (list(area.DisplayedAreaTopLeftHandCorner), list(area.DisplayedAreaBottomRightHandCorner)) == (
        [1, 1],
        [56, 40],
    )


def test_lesions_that_share_a_key_slice_share_its_annotation(manifest: Manifest, tmp_path: Path) -> None:
    geometry = manifest_geometry(manifest)
    masks = [ellipsoid(geometry.shape, (6, 10, 10), (2, 3, 3)), ellipsoid(geometry.shape, (6, 30, 53), (2, 4, 3))]
    state = built(made_findings(geometry, manifest_key=manifest.key, lesions=masks), manifest, tmp_path)
    (drawn,) = [item for item in state.GraphicAnnotationSequence if item.GraphicLayer == "LESIONS"]
    assert len(drawn.GraphicObjectSequence) == 2
    assert len(drawn.TextObjectSequence) == 2


@pytest.mark.parametrize(("row", "column"), [(10, 10), (30, 53), (1, 30), (38, 50)])
def test_a_label_stands_beside_its_box_and_inside_the_image(
    manifest: Manifest, tmp_path: Path, row: int, column: int
) -> None:
    geometry = manifest_geometry(manifest)
    findings = made_findings(
        geometry, manifest_key=manifest.key, lesions=[ellipsoid(geometry.shape, (6, row, column), (2, 3, 3))]
    )
    state = built(findings, manifest, tmp_path)
    (drawn,) = [item for item in state.GraphicAnnotationSequence if item.GraphicLayer == "LESIONS"]
    left, top = drawn.TextObjectSequence[0].BoundingBoxTopLeftHandCorner
    right, bottom = drawn.TextObjectSequence[0].BoundingBoxBottomRightHandCorner
    assert 0 <= left < right <= 56
    assert 0 <= top < bottom <= 40
    box = findings.lesions[0].key_box.box
    assert left >= box.c1 or right <= box.c0
    assert top < box.r1
    assert bottom > box.r0


def test_no_lesion_and_no_liver_show_their_sentence(findings: Findings, manifest: Manifest, tmp_path: Path) -> None:
    nothing = made_findings(manifest_geometry(manifest), manifest_key=manifest.key, lesions=())
    for run, sentence in [(nothing, "No liver lesion found."), (without_liver(findings), "No liver found")]:
        state = built(run, manifest, tmp_path / run.outcome)
        (annotation,) = state.GraphicAnnotationSequence
        assert sentence in annotation.TextObjectSequence[0].UnformattedTextValue


def test_a_slice_with_another_rescale_is_left_out(findings: Findings, manifest: Manifest, tmp_path: Path) -> None:
    odd = findings.lesions[1].key_slice
    reference = manifest.slices[odd]
    instance = manifest.instances[reference.instance]
    frame = replace(instance.frames[0], rescale_slope=2.0)
    changed = list(manifest.instances)
    changed[reference.instance] = replace(instance, frames=(frame,))
    state = built(findings, replace(manifest, instances=tuple(changed)), tmp_path)
    shown = {item.ReferencedSOPInstanceUID for item in state.ReferencedSeriesSequence[0].ReferencedImageSequence}
    assert shown == {uid_of_slice(manifest, findings.lesions[0].key_slice)}
