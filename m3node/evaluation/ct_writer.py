"""Writes a volume in HU as a CT series: for phantoms, for inserted lesions and for tests."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from m3node.imaging.geometry import PatientGeometry

RESCALE_INTERCEPT = -1024

_SOFT_TISSUE_WINDOW = (60, 400)
"""Centre and width in HU; without one a viewer stretches its greys from air to metal, and the liver is a flat grey."""


def seeded_uid(*parts: object) -> str:
    """Return the ``2.25.`` UID that these parts always give."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, 'm3node/' + '/'.join(str(part) for part in parts)).int}"


def axial_geometry(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    row: tuple[float, float, float] = (1.0, 0.0, 0.0),
    column: tuple[float, float, float] = (0.0, 1.0, 0.0),
    upwards: bool = True,
) -> PatientGeometry:
    """Build the geometry of an evenly spaced stack.

    Parameters
    ----------
    shape : tuple of int
        Slices, rows, columns.
    spacing : tuple of float
        mm between slices, rows, columns.
    origin : tuple of float
        Patient mm of voxel (0, 0, 0).
    row, column : tuple of float
        Unit directions of a row (increasing column index) and of a column (increasing row index), LPS.
    upwards : bool
        Whether slice index rises along row × column.
    """
    x, y = np.asarray(row, float), np.asarray(column, float)
    normal = np.cross(x, y) * (1.0 if upwards else -1.0)
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing[0]
    affine[:3, 1] = y * spacing[1]
    affine[:3, 2] = x * spacing[2]
    affine[:3, 3] = origin
    positions = np.asarray(origin, float) + np.arange(shape[0])[:, None] * affine[:3, 0]
    return PatientGeometry(affine=affine, positions=positions, shape=shape)


def write_ct_series(
    folder: Path,
    hu: npt.NDArray[np.integer[Any]],
    geometry: PatientGeometry,
    *,
    seed: object,
    patient_position: str = "HFS",
    attributes: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Write one CT Image Storage file a slice, uncompressed.

    Parameters
    ----------
    folder : Path
        Made when absent.
    hu : ndarray of int, shape (slices, rows, columns)
        HU of −1024…3071.
    geometry : PatientGeometry
        Where the voxels lie.
    seed : object
        Study, series, frame of reference and instance UIDs follow from it.
    patient_position : str
        Patient Position (PS3.3 C.7.3.1.1.2).
    attributes : mapping of str to value
        Attributes by keyword, set last on every slice: to name a patient, to break something.

    Returns
    -------
    tuple of Path
        Files in slice order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dz, dr, dc = geometry.spacing
    row_direction = geometry.affine[:3, 2] / dc
    column_direction = geometry.affine[:3, 1] / dr
    files: list[Path] = []
    for k in range(hu.shape[0]):
        ds = _slice(hu[k], seed, k)
        ds.PatientPosition = patient_position
        ds.ImagePositionPatient = [round(float(v), 6) for v in geometry.positions[k]]
        ds.ImageOrientationPatient = [round(float(v), 9) for v in (*row_direction, *column_direction)]
        ds.PixelSpacing = [round(dr, 6), round(dc, 6)]
        ds.SliceThickness = round(dz, 6)
        for keyword, value in (attributes or {}).items():
            setattr(ds, keyword, value)
        path = folder / f"{k:04d}.dcm"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(path, enforce_file_format=True)
        files.append(path)
    return tuple(files)


def _slice(hu: npt.NDArray[np.integer[Any]], seed: object, k: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = UID(seeded_uid(seed, "instance", k))
    ds.StudyInstanceUID = UID(seeded_uid(seed, "study"))
    ds.SeriesInstanceUID = UID(seeded_uid(seed, "series"))
    ds.FrameOfReferenceUID = UID(seeded_uid(seed, "frame of reference"))
    ds.PositionReferenceIndicator = ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ""
    ds.StudyID = "1"
    ds.StudyDescription = "Abdomen CT"
    ds.SeriesDescription = "Abdomen 2.0 B30f"
    ds.Modality = "CT"
    ds.Manufacturer = "m3node"
    ds.ReferringPhysicianName = ""
    ds.PatientName = "Phantom^Abdomen"
    ds.PatientID = "PHANTOM"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.BodyPartExamined = "ABDOMEN"
    ds.KVP = "120"
    ds.ConvolutionKernel = "B30f"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = k + 1
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated = 16
    ds.BitsStored = 12
    ds.HighBit = 11
    ds.PixelRepresentation = 0
    ds.RescaleIntercept = RESCALE_INTERCEPT
    ds.RescaleSlope = 1
    ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = _SOFT_TISSUE_WINDOW
    ds.PixelData = np.clip(hu - RESCALE_INTERCEPT, 0, 4095).astype("<u2").tobytes()
    return ds
