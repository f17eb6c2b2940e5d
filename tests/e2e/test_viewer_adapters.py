"""What OHIF makes of our objects, asked of the adapters it reads them with, in Node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import missing
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.assemble import geometry_of
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.results.build import build_objects
from m3node.results.findings import Findings
from m3node.results.objects import ObjectKind
from m3node.settings import load
from made_findings import ellipsoid, made_findings, with_attention

HARNESS = Path(__file__).parent / "viewer"
SHAPE = (12, 48, 64)

# How the slices lie: nothing in the objects may depend on it.
ORIENTATIONS: dict[str, dict[str, Any]] = {
    "head first": {},
    "feet first": {"row": (-1.0, 0.0, 0.0), "upwards": False},
    "stored from the top": {"upwards": False},
    "rotated in plane": {"row": (0.8, 0.6, 0.0), "column": (-0.6, 0.8, 0.0)},
}


@dataclass(frozen=True)
class Seen:
    """A run's findings, and what the viewer made of its objects."""

    manifest: Manifest
    geometry: PatientGeometry
    findings: Findings
    viewer: dict[str, Any]

    @property
    def measurements(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.viewer["reports"][ObjectKind.REPORT.file_name]["measurements"]
        return found

    def uid_of(self, k: int) -> str:
        return self.manifest.instances[self.manifest.slices[k].instance].sop_instance_uid

    def segment(self, number: int) -> BoolArray:
        """The voxels that the viewer gives to a segment, on the volume's grid."""
        mask = np.zeros(self.geometry.shape, dtype=np.bool_)
        for k in range(self.geometry.shape[0]):
            plane = mask[k].reshape(-1)
            for first, length in self.viewer["segmentation"]["slices"].get(self.uid_of(k), {}).get(str(number), []):
                plane[first : first + length] = True
        return mask


@pytest.fixture(scope="module")
def read_objects(
    program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Run the harness on a CT folder, a SEG and SRs."""
    node = program("node")
    if not (HARNESS / "node_modules").is_dir():
        missing("the viewer's adapters (npm ci in tests/e2e/viewer)")
    bundle = tmp_path_factory.mktemp("viewer") / "read_objects.mjs"
    subprocess.run([node, "bundle.mjs", bundle], cwd=HARNESS, check=True, timeout=120)

    def run(*paths: Path) -> dict[str, Any]:
        answer = subprocess.run([node, bundle, *paths], check=True, capture_output=True, timeout=120)
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    return run


def written(folder: Path, orientation: str) -> Path:
    """Write a small series that lies as the orientation says."""
    # Square pixels: Cornerstone swaps the two spacings when it maps an SR's points (imageToWorldCoords).
    geometry = axial_geometry(SHAPE, (2.5, 0.8, 0.8), origin=(-31.0, -47.0, 103.0), **ORIENTATIONS[orientation])
    write_ct_series(folder, np.zeros(SHAPE, np.int16), geometry, seed=orientation)
    return folder


def answered(series: Path, out: Path, read_objects: Callable[..., dict[str, Any]]) -> Seen:
    """Build the objects of made-up findings in a series, and have the viewer read them."""
    (stack,) = group_stacks([read_header(path, series) for path in sorted(series.iterdir())])
    manifest = make_manifest(stack, root=series, created_at=0.0)
    geometry = geometry_of(manifest)
    made = made_findings(geometry, manifest_key=manifest.key, lesions=made_lesions(geometry.shape))
    findings = with_attention(made)
    objects = build_objects(findings, manifest, out, load())
    path_of = {item.kind: item.path for item in objects}
    viewer = read_objects(
        series, path_of[ObjectKind.SEGMENTATION], path_of[ObjectKind.REPORT], path_of[ObjectKind.VOLUMES]
    )
    return Seen(manifest, geometry, findings, viewer)


def made_lesions(shape: tuple[int, int, int]) -> tuple[VoxelMask, VoxelMask]:
    """One lesion inside the made-up liver and one across its border, neither symmetric in any axis."""
    n, rows, columns = shape
    inside = ellipsoid(shape, (n * 0.5, rows * 0.42, columns * 0.31), (2.2, rows * 0.1, columns * 0.12))
    border = ellipsoid(shape, (n * 0.75, rows * 0.62, columns * 0.62), (1.4, rows * 0.12, columns * 0.06))
    return corner_cut(inside), border


def corner_cut(mask: VoxelMask) -> VoxelMask:
    """The mask without a corner of its block, so that no mirror image equals it."""
    data = mask.data.copy()
    data[: data.shape[0] // 2 + 1, : data.shape[1] // 2, : data.shape[2] // 3] = False
    return VoxelMask(mask.shape, mask.start, data).cropped()


@pytest.fixture(scope="module", params=[*ORIENTATIONS, "a real CT"])
def seen(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    read_objects: Callable[..., dict[str, Any]],
) -> Seen:
    out = tmp_path_factory.mktemp("results")
    if request.param in ORIENTATIONS:
        return answered(written(out / "ct", request.param), out, read_objects)
    test_data: Path = request.getfixturevalue("test_data")
    return answered(test_data / "ct_liver_j2k", out, read_objects)


def test_the_seg_loads_into_the_right_voxels(seen: Seen) -> None:
    assert seen.findings.region is not None
    lesions = [lesion.mask.full() for lesion in seen.findings.lesions]
    # The adapters lose a lesion's slices where it shares a layer with a longer one, and layers are what they make of
    # segments that overlap: so the liver is what no lesion covers.
    tissue = seen.findings.region.parenchyma.full() & ~np.logical_or.reduce(lesions)
    for number, mask in enumerate([tissue, *lesions], start=1):
        np.testing.assert_array_equal(seen.segment(number), mask, err_msg=f"segment {number}")
    assert not seen.viewer["segmentation"]["overlapping"]


def test_each_segment_has_a_name_and_a_colour(seen: Seen) -> None:
    segments = seen.viewer["segmentation"]["segments"]
    assert [segment["number"] for segment in segments] == [1, 2, 3]
    assert all(segment["label"] for segment in segments)
    assert all(segment["color"] for segment in segments)


def test_each_lesion_hydrates_to_one_measurement_on_its_key_slice(seen: Seen) -> None:
    assert [item["tracking_uid"] for item in seen.measurements] == list(seen.findings.tracking_uids)
    expected = [seen.uid_of(lesion.key_slice) for lesion in seen.findings.lesions]
    assert [item["referenced_instance"] for item in seen.measurements] == expected


def test_each_measurement_outlines_the_lesions_box_in_the_patient(seen: Seen) -> None:
    for lesion, item in zip(seen.findings.lesions, seen.measurements, strict=True):
        box = lesion.key_box.box
        # The box covers voxels to their edges; voxel coordinates are at centres, half a voxel further in.
        corners = [
            (lesion.key_slice, r - 0.5, c - 0.5)
            for r, c in ((box.r0, box.c0), (box.r0, box.c1), (box.r1, box.c1), (box.r1, box.c0))
        ]
        outlined = {tuple(np.round(point, 1) + 0.0) for point in item["points_mm"]}
        assert outlined == {tuple(np.round(point, 1) + 0.0) for point in seen.geometry.to_patient(corners)}


def test_the_viewer_complains_of_neither(seen: Seen) -> None:
    assert seen.viewer["segmentation"]["warnings"] == []
    assert seen.viewer["reports"][ObjectKind.REPORT.file_name]["warnings"] == []


def test_the_volumes_hydrate_to_no_second_measurement(seen: Seen) -> None:
    assert seen.viewer["reports"][ObjectKind.VOLUMES.file_name]["measurements"] == []
