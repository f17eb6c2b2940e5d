"""``presentation.pr.dcm``: boxes and labels on the key slices (Grayscale Softcopy Presentation State, PS3.3 A.33.1)."""

from __future__ import annotations

import logging
from itertools import groupby

import numpy as np
from highdicom import ModalityLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom.dataset import Dataset

from m3node.m3.lesion import Lesion
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results.dress import Job, content_datetime, dress, plain
from m3node.results.objects import ObjectKind
from m3node.results.report import rectangle
from m3node.results.segmentation import lesion_colour, tracking_identifier
from m3node.results.source import decimals
from m3node.results.statements import library_slices, sentences

logger = logging.getLogger(__name__)

SOFT_TISSUE_WINDOW = (60.0, 400.0)
"""Centre and width in HU."""


def build_presentation(job: Job) -> bytes:
    """Build the presentation state: on each key slice its lesions' boxes and labels, outcome and notice.

    One Modality LUT holds for all that a presentation state refers to. Slices whose rescale differs from the first
    key slice's (not in CT as scanners make it) are left out, and the log says so.
    """
    shown = _alike(job, library_slices(job))
    lesions = sorted(job.findings.lesions, key=lambda lesion: lesion.key_slice)
    by_slice = {k: list(group) for k, group in groupby(lesions, key=lambda lesion: lesion.key_slice)}
    box_layer = GraphicLayer("LESIONS", order=1, description="Boxes", display_color=_colour(1))
    text_layer = GraphicLayer("NOTICE", order=2, description="Outcome and notice")
    annotations: list[GraphicAnnotation] = []
    for k in shown:
        image, frames = job.source.reference_image(k), job.source.frame_numbers(k)
        annotations.append(
            GraphicAnnotation(
                referenced_images=[image],
                graphic_layer=text_layer,
                referenced_frame_number=frames,
                text_objects=[_notice(job)],
            )
        )
        if by_slice.get(k):
            annotations.append(
                GraphicAnnotation(
                    referenced_images=[image],
                    graphic_layer=box_layer,
                    referenced_frame_number=frames,
                    graphic_objects=[_box(job, lesion) for lesion in by_slice[k]],
                    text_objects=[_label(job, lesion) for lesion in by_slice[k]],
                )
            )
    slope, intercept = job.source.slices[shown[0]].rescale
    centre, width = SOFT_TISSUE_WINDOW
    attributes = job.attributes(ObjectKind.PRESENTATION)
    # This IOD has Presentation Creation Date and Time instead.
    del attributes["content_date"], attributes["content_time"]
    sop = GrayscaleSoftcopyPresentationState(
        referenced_images=_distinct([job.source.reference_image(k) for k in shown]),
        content_label="M3NODE",
        content_description=NOT_FOR_CLINICAL_USE,
        graphic_layers=[box_layer, text_layer],
        graphic_annotations=annotations,
        modality_lut_transformation=ModalityLUTTransformation(
            rescale_intercept=intercept, rescale_slope=slope, rescale_type="HU"
        ),
        voi_lut_transformations=[SoftcopyVOILUTTransformation(window_center=centre, window_width=width)],
        **attributes,
    )
    # highdicom writes an aspect ratio of 1:1 whatever the pixels' shape, and a viewer would squeeze the patient.
    (area,) = sop.DisplayedAreaSelectionSequence
    area.PresentationPixelSpacing = decimals(job.source.slices[shown[0]].spacing)
    del area.PresentationPixelAspectRatio
    when = content_datetime(job)
    sop.PresentationCreationDate = when.strftime("%Y%m%d")
    sop.PresentationCreationTime = when.strftime("%H%M%S.%f")
    # Without a body part Laterality would be required (PS3.3 C.7.3.1, type 2C).
    sop.BodyPartExamined = "LIVER"
    return dress(sop, job)


def _alike(job: Job, slices: list[int]) -> list[int]:
    alike = [k for k in slices if job.source.slices[k].rescale == job.source.slices[slices[0]].rescale]
    if len(alike) < len(slices):
        logger.warning(
            "series %s: %d key slices have another rescale and are left out of the presentation state",
            job.source.series_instance_uid,
            len(slices) - len(alike),
        )
    return alike


def _box(job: Job, lesion: Lesion) -> GraphicObject:
    return GraphicObject(
        graphic_type="POLYLINE",
        graphic_data=rectangle(lesion.key_box.box, job.source.shape),
        units="PIXEL",
        tracking_id=tracking_identifier(lesion),
        tracking_uid=_tracking_uid(job, lesion),
    )


def _label(job: Job, lesion: Lesion) -> TextObject:
    """Number and diameter, beside the box: on its right, or on its left where the image ends."""
    _, rows, columns = job.source.shape
    corners = rectangle(lesion.key_box.box, job.source.shape)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    width, height = columns * 0.16, rows * 0.05
    x0 = right + 2 if right + 2 + width <= columns else max(left - 2 - width, 0.0)
    y0 = float(np.clip((top + bottom - height) / 2, 0.0, rows - height))
    return TextObject(
        text_value=plain(f"{lesion.number}: {lesion.measurements.longest.length_mm:.0f} mm", 1024),
        units="PIXEL",
        bounding_box=(float(x0), y0, float(min(x0 + width, columns)), y0 + height),
        text_justification="LEFT",
        tracking_id=tracking_identifier(lesion),
        tracking_uid=_tracking_uid(job, lesion),
    )


def _notice(job: Job) -> TextObject:
    """Outcome and notice, along the lower edge of the display whatever part of the image it shows."""
    return TextObject(
        text_value=plain(f"m3node: {sentences(job.findings)[0]} {NOT_FOR_CLINICAL_USE}", 1024),
        units="DISPLAY",
        bounding_box=(0.02, 0.92, 0.98, 0.98),
        text_justification="CENTER",
    )


def _tracking_uid(job: Job, lesion: Lesion) -> str:
    return job.findings.tracking_uids[job.findings.lesions.index(lesion)]


def _colour(number: int) -> CIELabColor:
    return CIELabColor.from_rgb(*lesion_colour(number))


def _distinct(images: list[Dataset]) -> list[Dataset]:
    return list({image.SOPInstanceUID: image for image in images}.values())
