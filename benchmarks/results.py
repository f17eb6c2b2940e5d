"""Both SRs, SEG and GSPS of a 500-slice series, against dcmqi's ``itkimage2segimage`` for the SEG alone.

Ours starts where the node's worker does, in a process that is up: findings in memory, headers indexed on arrival; it
ends with four files durably in place. The rival is its command with the same voxels as an uncompressed label map. A
row for information adds what a fresh interpreter takes: start, imports, reading findings and headers
(``results_fresh.py``). Before any time is taken, the voxels of the two SEGs are compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import highdicom as hd
import numpy as np
import SimpleITK

from m3node import __version__
from m3node.detectors.protocols import Box2D, DetectorIdentity, ScoreKind, SliceBox
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, make_manifest, write_manifest
from m3node.intake.series.reading import read_headers
from m3node.intake.series.stacks import group_stacks
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.lesion import Diameter, Lesion, MaskOrigin, Measurements
from m3node.results.build import build_objects
from m3node.results.findings import Findings, Outcome
from m3node.results.objects import ObjectKind
from m3node.results.store import save_findings
from m3node.results.succession import assign_tracking
from m3node.settings import Settings
from table import RatioRow, print_ratios

SIDE = 512
SPACING = (1.0, 0.8, 0.8)
LIVER_SLICES = 180
LESIONS = 5
BAR = 1.5


def ellipsoid(shape: tuple[int, int, int], centre: tuple[float, ...], radii: tuple[float, ...]) -> VoxelMask:
    k, r, c = np.ogrid[: shape[0], : shape[1], : shape[2]]
    inside = ((k - centre[0]) / radii[0]) ** 2 + ((r - centre[1]) / radii[1]) ** 2 + ((c - centre[2]) / radii[2]) ** 2
    return VoxelMask.from_full(inside <= 1.0)


def make_lesion(number: int, mask: VoxelMask, geometry: PatientGeometry) -> Lesion:
    extent = mask.extent
    if extent is None:
        raise AssertionError
    (k0, k1), (r0, r1), (c0, c1) = extent
    boxes = tuple(SliceBox(k, Box2D(r0, c0, r1, c1), 0.9, 3, 3) for k in range(k0, k1))
    key = (k0 + k1) // 2
    _, row_mm, column_mm = geometry.spacing
    x, y, z = (float(v) for v in geometry.to_patient(np.array([key, (r0 + r1) / 2, (c0 + c1) / 2])))
    return Lesion(
        number=number,
        mask=mask,
        mask_origin=MaskOrigin.DETECTOR,
        boxes=boxes,
        key_slice=key,
        key_box=boxes[key - k0],
        score=0.9,
        score_kind=ScoreKind.PROBABILITY,
        votes=3,
        views=3,
        measurements=Measurements(
            longest=Diameter((c1 - c0) * column_mm, (key, r0, c0), (key, r0, c1)),
            perpendicular=Diameter((r1 - r0) * row_mm, (key, r0, c0), (key, r1, c0)),
            volume_ml=mask.count * geometry.voxel_volume_ml,
            hu_mean=60.0,
            hu_sd=10.0,
            hu_liver_mean=105.0,
            centroid_mm=(x, y, z),
        ),
    )


def make_findings(manifest: Manifest, geometry: PatientGeometry) -> Findings:
    """A liver on ``LIVER_SLICES`` slices with lesions carved out of it: a label map holds one label a voxel."""
    shape = geometry.shape
    middle = shape[0] / 2
    parenchyma = ellipsoid(shape, (middle, 240, 180), (LIVER_SLICES / 2, 130, 120)).full()
    masks = []
    for number in range(LESIONS):
        centre = (middle - 50 + 25 * number, 180 + 25 * number, 130 + 20 * number)
        masks.append(ellipsoid(shape, centre, (6 + 2 * number, 8 + 2 * number, 9 + 2 * number)))
        parenchyma &= ~masks[-1].full()
    liver = VoxelMask.from_full(parenchyma)
    findings = Findings(
        manifest_key=manifest.key,
        outcome=Outcome.LESIONS,
        content_time="2026-01-01T12:00:00+00:00",
        software_version=__version__,
        detector=DetectorIdentity("benchmark", "1", "Made-up lesions."),
        settings_digest="",
        region=LiverRegion(liver, liver, LiverSource.EMBEDDED, "", "made-up"),
        lesions=tuple(make_lesion(number, mask, geometry) for number, mask in enumerate(masks, start=1)),
        views_total=0,
        views_read=0,
        failures=(),
        tracking_uids=(),
        predecessors=(),
        rejection=None,
    )
    return assign_tracking(findings)


def index(folder: Path) -> Manifest:
    """Do what the node does on arrival."""
    headers = [found for found in read_headers(sorted(folder.iterdir()), folder) if isinstance(found, InstanceHeader)]
    (stack,) = group_stacks(headers)
    return make_manifest(stack, root=folder)


def write_label_map(findings: Findings, geometry: PatientGeometry, path: Path) -> None:
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    if findings.region is None:
        raise AssertionError
    labels[findings.region.parenchyma.full()] = 1
    for lesion in findings.lesions:
        labels[lesion.mask.full()] = lesion.number + 1
    image = SimpleITK.GetImageFromArray(labels)
    dz, dr, dc = geometry.spacing
    image.SetSpacing((dc, dr, dz))
    image.SetOrigin(tuple(float(v) for v in geometry.positions[0]))
    SimpleITK.WriteImage(image, str(path), useCompression=False)


def write_metadata(path: Path) -> None:
    lesion = {"CodeValue": "52988006", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Lesion"}
    liver = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}
    abnormal = {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Abnormal structure"}
    anatomical = {"CodeValue": "91723000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    attributes = [
        {
            "labelID": label,
            "SegmentLabel": "Liver" if label == 1 else f"Lesion {label - 1}",
            "SegmentDescription": "Liver" if label == 1 else "Lesion",
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "benchmark",
            "SegmentedPropertyCategoryCodeSequence": anatomical if label == 1 else abnormal,
            "SegmentedPropertyTypeCodeSequence": liver if label == 1 else lesion,
            "recommendedDisplayRGBValue": [221, 130, 101],
        }
        for label in range(1, LESIONS + 2)
    ]
    document = {
        "ContentCreatorName": "Doe^John",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "segmentAttributes": [attributes],
    }
    path.write_text(json.dumps(document))


def rival(work: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "itkimage2segimage"),
        *("--inputDICOMDirectory", str(work / "ct"), "--inputImageList", str(work / "labels.nrrd")),
        *("--inputMetadata", str(work / "meta.json"), "--outputDICOM", str(work / "rival.dcm"), "--skip", "1"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"itkimage2segimage failed: {done.stderr[-500:]}")


def ours(findings: Findings, manifest: Manifest, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    if len(build_objects(findings, manifest, out, Settings())) != 4:
        sys.exit("an object is missing")


def assert_same_voxels(one: Path, other: Path, geometry: PatientGeometry) -> None:
    for number in range(1, LESIONS + 2):
        volumes = [
            hd.seg.segread(path).get_volume(segment_numbers=[number], combine_segments=False) for path in (one, other)
        ]
        points = []
        for volume in volumes:
            found = np.argwhere(volume.array[..., 0]) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
            points.append(np.unique(geometry.to_voxel(found).round().astype(np.int64), axis=0))
        if not points[0].size or not np.array_equal(*points):
            sys.exit(f"segment {number} differs")


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m3node-bench-results-") as name:
        work = Path(name)
        geometry = axial_geometry((options.slices, SIDE, SIDE), SPACING, origin=(-200.0, -200.0, 0.0))
        hu = np.broadcast_to(np.int16(40), geometry.shape)
        write_ct_series(work / "ct", hu, geometry, seed="results benchmark")
        manifest = index(work / "ct")
        (work / "manifests").mkdir()
        manifest_file = write_manifest(manifest, work / "manifests")
        findings = make_findings(manifest, geometry)
        save_findings(findings, work / "run")
        write_label_map(findings, geometry, work / "labels.nrrd")
        write_metadata(work / "meta.json")

        ours(findings, manifest, work / "ours")
        rival(work)
        assert_same_voxels(work / "ours" / ObjectKind.SEGMENTATION.file_name, work / "rival.dcm", geometry)

        child = [sys.executable, Path(__file__).with_name("results_fresh.py"), work / "run", manifest_file]
        warm, cold, theirs = [], [], []
        for _ in range(options.pairs):
            warm.append(timed(partial(ours, findings, manifest, work / "ours")))
            theirs.append(timed(partial(rival, work)))
            cold.append(timed(partial(subprocess.run, [*child, work / f"fresh-{len(cold)}"], check=True)))
        met = print_ratios(
            f"Results of {options.slices} slices, {LIVER_SLICES} with liver, {LESIONS} lesions (seconds)",
            [
                RatioRow("SRs + SEG + GSPS, in the worker | itkimage2segimage", warm, theirs, BAR),
                RatioRow("the same in a fresh interpreter | itkimage2segimage", cold, theirs),
            ],
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
