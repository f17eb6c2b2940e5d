"""A manifest of a folder of CT files, by the shortest way: every file one slice or one multi-frame stack."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from m3node.imaging.geometry import PatientGeometry
from m3node.intake.series.header import FrameHeader, InstanceHeader, PixelLayout
from m3node.intake.series.manifest import Manifest, SliceRef, StackKey


def made_manifest(files: Sequence[Path]) -> Manifest:
    """Read headers and sort the slices along their normal."""
    root = files[0].parent
    instances = [_instance(path, root) for path in files]
    normal = np.cross(instances[0].frames[0].orientation[:3], instances[0].frames[0].orientation[3:])
    places = [
        (float(np.dot(frame.position, normal)), SliceRef(i, f))
        for i, instance in enumerate(instances)
        for f, frame in enumerate(instance.frames)
    ]
    slices = tuple(reference for _, reference in sorted(places, key=lambda item: item[0]))
    key = hashlib.sha256("".join(instance.sop_instance_uid for instance in instances).encode()).hexdigest()
    return Manifest(
        key=key,
        stack=StackKey(instances[0].series_instance_uid, ""),
        generation=1,
        supersedes="",
        root=str(root),
        instances=tuple(instances),
        slices=slices,
        liver_segs=(),
        senders=(),
        priority="routine",
        created_at=0.0,
    )


def manifest_geometry(manifest: Manifest) -> PatientGeometry:
    """The grid of the manifest's slices."""
    frames = [manifest.instances[ref.instance].frames[ref.frame] for ref in manifest.slices]
    pixels = manifest.instances[0].pixels
    positions = np.array([frame.position for frame in frames])
    orientation = np.array(frames[0].orientation)
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / max(len(frames) - 1, 1)
    affine[:3, 1] = orientation[3:] * frames[0].pixel_spacing[0]
    affine[:3, 2] = orientation[:3] * frames[0].pixel_spacing[1]
    affine[:3, 3] = positions[0]
    return PatientGeometry(affine=affine, positions=positions, shape=(len(frames), pixels.rows, pixels.columns))


def _instance(path: Path, root: Path) -> InstanceHeader:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    return InstanceHeader(
        path=str(path.relative_to(root)),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        frame_of_reference_uid=str(ds.get("FrameOfReferenceUID", "")),
        patient_digest="",
        modality="CT",
        image_type=tuple(ds.ImageType),
        series_number=None,
        series_description="",
        protocol_name="",
        body_part_examined="",
        manufacturer="",
        patient_position=str(ds.get("PatientPosition", "")),
        gantry_tilt=None,
        instance_number=None,
        device_uid="",
        sender="",
        received_at=0.0,
        pixels=PixelLayout(
            ds.Rows, ds.Columns, 1, "MONOCHROME2", 16, 16, 15, 0, int(ds.get("NumberOfFrames", 1)), -1, -1
        ),
        frames=_frames(ds),
    )


def _frames(ds: Dataset) -> tuple[FrameHeader, ...]:
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return (_frame(ds, ds, ds, ds, 1),)
    shared = ds.SharedFunctionalGroupsSequence[0]

    def group(item: Dataset, keyword: str) -> Dataset:
        found = item[keyword] if keyword in item else shared[keyword]
        return found.value[0]

    return tuple(
        _frame(
            group(item, "PlanePositionSequence"),
            group(item, "PlaneOrientationSequence"),
            group(item, "PixelMeasuresSequence"),
            group(item, "PixelValueTransformationSequence"),
            number,
        )
        for number, item in enumerate(ds.PerFrameFunctionalGroupsSequence, start=1)
    )


def _frame(position: Dataset, orientation: Dataset, measures: Dataset, rescale: Dataset, number: int) -> FrameHeader:
    return FrameHeader(
        number=number,
        position=tuple(float(v) for v in position.ImagePositionPatient),
        orientation=tuple(float(v) for v in orientation.ImageOrientationPatient),
        pixel_spacing=tuple(float(v) for v in measures.PixelSpacing),
        slice_thickness=float(measures.SliceThickness),
        rescale_slope=float(rescale.RescaleSlope),
        rescale_intercept=float(rescale.RescaleIntercept),
        acquisition_number=None,
        temporal_position=None,
        kernel="",
        image_type=(),
    )
