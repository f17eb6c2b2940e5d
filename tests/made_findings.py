"""Findings that a test makes up: an ellipsoid liver with ellipsoid lesions on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from m3node import __version__
from m3node.detectors.protocols import (
    AttentionGrid,
    Box2D,
    DetectorIdentity,
    ScoreKind,
    SliceAttention,
    SliceBox,
)
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.lesion import Diameter, Lesion, MaskOrigin, Measurements
from m3node.results.attention.choice import choose_attention
from m3node.results.findings import Findings, Outcome
from m3node.results.succession import assign_tracking

DETECTOR = DetectorIdentity(
    name="made-up",
    version="1.2.3",
    description="A test's detector: it finds what the test planted.",
    weights="sha256:0123456789abcdef made-up-weights",
    parameters=(("alpha", "1"), ("threshold", "0.5")),
)

Point = tuple[float, float, float]


def ellipsoid(shape: tuple[int, int, int], centre: Point, radii: Point) -> VoxelMask:
    """Voxels inside an ellipsoid; centre and radii in voxels (k, r, c)."""
    k, r, c = np.ogrid[: shape[0], : shape[1], : shape[2]]
    inside = (
        ((k - centre[0]) / radii[0]) ** 2 + ((r - centre[1]) / radii[1]) ** 2 + ((c - centre[2]) / radii[2]) ** 2
    ) <= 1.0
    return VoxelMask.from_full(inside)


def made_lesion(number: int, mask: VoxelMask, geometry: PatientGeometry) -> Lesion:
    """A lesion with the mask's own box on each slice, and plausible measurements."""
    extent = mask.extent
    assert extent is not None
    boxes = []
    areas = {}
    for k in range(*extent[0]):
        plane = mask.on_slice(k)
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        areas[k] = int(plane.sum())
        box = Box2D(float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))
        boxes.append(SliceBox(slice_index=k, box=box, score=0.9 - number / 10, votes=2, views=3))
    key = max(areas, key=lambda k: areas[k])
    key_box = next(box for box in boxes if box.slice_index == key)
    middle_row = (key_box.box.r0 + key_box.box.r1 - 1) / 2
    middle_column = (key_box.box.c0 + key_box.box.c1 - 1) / 2
    _, row_mm, column_mm = geometry.spacing
    voxels = np.argwhere(mask.data) + np.asarray(mask.start)
    centroid = geometry.to_patient(voxels.mean(axis=0))
    return Lesion(
        number=number,
        mask=mask,
        mask_origin=MaskOrigin.DETECTOR,
        boxes=tuple(boxes),
        key_slice=key,
        key_box=key_box,
        score=0.9 - number / 10,
        score_kind=ScoreKind.PROBABILITY,
        votes=2,
        views=3,
        measurements=Measurements(
            longest=Diameter(
                length_mm=(key_box.box.c1 - key_box.box.c0) * column_mm,
                start=(key, middle_row, key_box.box.c0),
                end=(key, middle_row, key_box.box.c1 - 1),
            ),
            perpendicular=Diameter(
                length_mm=(key_box.box.r1 - key_box.box.r0) * row_mm,
                start=(key, key_box.box.r0, middle_column),
                end=(key, key_box.box.r1 - 1, middle_column),
            ),
            volume_ml=mask.count * geometry.voxel_volume_ml,
            hu_mean=61.25,
            hu_sd=9.5,
            hu_liver_mean=105.125,
            centroid_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
        ),
    )


def made_findings(
    geometry: PatientGeometry,
    *,
    manifest_key: str = "a" * 64,
    lesions: Sequence[VoxelMask] | None = None,
    outcome: Outcome | None = None,
) -> Findings:
    """A liver that fills the middle of the grid, and two lesions unless others are given; off-centre on every axis."""
    n, rows, columns = geometry.shape
    liver = ellipsoid(geometry.shape, (n * 0.55, rows * 0.45, columns * 0.35), (n * 0.4, rows * 0.35, columns * 0.3))
    if lesions is None:
        lesions = (
            ellipsoid(geometry.shape, (n * 0.5, rows * 0.4, columns * 0.3), (2.2, rows * 0.08, columns * 0.1)),
            ellipsoid(geometry.shape, (n * 0.7, rows * 0.55, columns * 0.5), (1.2, rows * 0.05, columns * 0.04)),
        )
    if outcome is None:
        outcome = Outcome.LESIONS if lesions else Outcome.NO_LESION
    findings = Findings(
        manifest_key=manifest_key,
        outcome=outcome,
        content_time="2026-03-04T05:06:07.250000+01:00",
        software_version=__version__,
        detector=DETECTOR,
        settings_digest="b" * 64,
        region=LiverRegion(
            parenchyma=liver, envelope=liver, source=LiverSource.EMBEDDED, reference="", algorithm="made-up-liver 1"
        ),
        lesions=tuple(made_lesion(number, mask, geometry) for number, mask in enumerate(lesions, start=1)),
        views_total=30,
        views_read=30,
        failures=(),
        tracking_uids=(),
        predecessors=(),
        rejection=None,
    )
    return assign_tracking(findings)


def made_grid(area: Box2D, *, seed: int = 0, cells: tuple[int, int] = (8, 8)) -> AttentionGrid:
    """Cells with values of their own, less than a third of the attention in all."""
    values = np.random.default_rng(seed).uniform(0.0, 0.3 / (cells[0] * cells[1]), size=cells)
    return AttentionGrid(values=values.astype(np.float32), area=area)


def with_attention(findings: Findings) -> Findings:
    """The same run, had it been asked where it looked; each view reaches beyond the image on one side."""
    assert findings.region is not None
    _, rows, columns = findings.region.parenchyma.shape
    area = Box2D(-0.1 * rows, 0.05 * columns, 0.8 * rows, 0.75 * columns)
    kept = [
        SliceAttention(k, made_grid(area, seed=k), box, padding=0.1)
        for k in range(findings.region.parenchyma.shape[0])
        for box in (
            None,
            *(found.box for lesion in findings.lesions for found in lesion.boxes if found.slice_index == k),
        )
    ]
    return replace(findings, attention=choose_attention(kept, findings.lesions, findings.region))


def without_liver(findings: Findings) -> Findings:
    """The same run, had it found no liver."""
    return replace(findings, outcome=Outcome.NO_LIVER, region=None, lesions=(), tracking_uids=())
