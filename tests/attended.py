"""A small series, findings that say where the model looked, and what is built of them: for tests of those objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.geometry import PatientGeometry
from m3node.intake.series.manifest import Manifest
from m3node.results.build import build_objects
from m3node.results.findings import Findings
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


def series(folder: Path, geometry: PatientGeometry = GEOMETRIES["head first"]) -> Manifest:
    """A body that reaches to every edge, of 10 HU more on each slice: none looks like another."""
    hu = np.full(geometry.shape, -1000, dtype=np.int16)
    body = ellipsoid(geometry.shape, (6, 30, 35), (20, 28, 33)).full()
    hu[body] = 10 * np.argwhere(body)[:, 0]
    return made_manifest(write_ct_series(folder / "ct", hu, geometry, seed="attention"))


def findings_of(manifest: Manifest, **changes: object) -> Findings:
    """Two lesions, each with attention."""
    made = made_findings(manifest_geometry(manifest), manifest_key=manifest.key)
    return with_attention(replace(made, **changes))


def built(findings: Findings, manifest: Manifest, folder: Path) -> dict[ObjectKind, Dataset]:
    """All that there can be of a run."""
    objects = build_objects(findings, manifest, folder / "out", Settings(), kinds=list(ObjectKind))
    return {item.kind: pydicom.dcmread(item.path) for item in objects}


def codes_of(sequence: Sequence[Dataset]) -> list[tuple[str, str]]:
    """Scheme and value of each code."""
    return [(str(item.CodingSchemeDesignator), str(item.CodeValue)) for item in sequence]
