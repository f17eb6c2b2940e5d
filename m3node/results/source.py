"""What results need to know of the series they answer: its patient and study, and where each slice lies.

Geometry comes from the manifest, where it was indexed on arrival; only one file is opened, for patient and study.
highdicom is given small data sets made here, without a patient: its constructors would print an odd name in a warning,
and refuse an odd sex or date, which are the source's and not ours to judge. `m3node.results.dress` then copies the
source's own patient and study, element by element, in the source's own character set.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DSfloat

from m3node.errors import ResultError
from m3node.intake.series.header import Orientation, Vector3
from m3node.intake.series.manifest import Manifest

logger = logging.getLogger(__name__)

LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
"""Say together that pixels are not what the scanner made of them."""


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """One slice of the source: a frame of an instance.

    Attributes
    ----------
    frame_number : int or None
        From 1 in a multi-frame instance, None in a single-frame one.
    position, orientation, spacing, thickness
        As in `m3node.intake.series.header.FrameHeader`; mm, LPS.
    rescale : tuple of float
        Slope and intercept.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    position: Vector3
    orientation: Orientation
    spacing: tuple[float, float]
    thickness: float
    rescale: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class SourceSeries:
    """The series that is answered.

    Attributes
    ----------
    header : Dataset
        The first instance without its pixels.
    shape : tuple of int
        Slices, rows, columns.
    slices : tuple of SourceSlice
        In manifest order.
    instances : tuple of (str, str)
        SOP Class and SOP Instance UID of every instance, in manifest order.
    spacing_between_slices : float
        mm, mean.
    """

    header: Dataset
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    shape: tuple[int, int, int]
    slices: tuple[SourceSlice, ...]
    instances: tuple[tuple[str, str], ...]
    spacing_between_slices: float

    def slice_image(self, k: int) -> Dataset:
        """Slice ``k`` as a single-frame CT without patient and pixels, as highdicom's constructors want one."""
        source = self.slices[k]
        ds = self._anonymous()
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = source.sop_instance_uid
        ds.ImagePositionPatient = decimals(source.position)
        ds.ImageOrientationPatient = decimals(source.orientation)
        ds.PixelSpacing = decimals(source.spacing)
        # Many archives' CTs leave it empty (type 2). A SEG must state one, and 0 is none.
        ds.SliceThickness = decimal(source.thickness or self.spacing_between_slices)
        ds.SpacingBetweenSlices = decimal(self.spacing_between_slices)
        return ds

    def reference_image(self, k: int) -> Dataset:
        """The instance that holds slice ``k``, with its real SOP Class: what references and libraries take."""
        source = self.slices[k]
        if source.frame_number is None:
            return self.slice_image(k)
        ds = self._anonymous()
        ds.SOPClassUID = source.sop_class_uid
        ds.SOPInstanceUID = source.sop_instance_uid
        ds.NumberOfFrames = sum(1 for other in self.slices if other.sop_instance_uid == source.sop_instance_uid)
        # Position and spacing belong to frames there: a library entry that described one of them would mislead.
        ds.Modality = "OT"
        return ds

    def evidence(self) -> list[Dataset]:
        """Every instance, for evidence and reference sequences."""
        listed: list[Dataset] = []
        for sop_class_uid, sop_instance_uid in self.instances:
            ds = self._anonymous() if not listed else Dataset()
            ds.StudyInstanceUID = self.study_instance_uid
            ds.SeriesInstanceUID = self.series_instance_uid
            ds.SOPClassUID = sop_class_uid
            ds.SOPInstanceUID = sop_instance_uid
            listed.append(ds)
        return listed

    def frame_numbers(self, k: int) -> list[int] | None:
        """Referenced Frame Number for slice ``k``; None for a single-frame instance."""
        number = self.slices[k].frame_number
        return None if number is None else [number]

    def _anonymous(self) -> Dataset:
        ds = Dataset()
        ds.StudyInstanceUID = self.study_instance_uid
        ds.SeriesInstanceUID = self.series_instance_uid
        ds.FrameOfReferenceUID = self.frame_of_reference_uid
        ds.PositionReferenceIndicator = str(self.header.get("PositionReferenceIndicator") or "")
        ds.Modality = "CT"
        ds.Rows, ds.Columns = self.shape[1:]
        ds.SamplesPerPixel = 1
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"):
            setattr(ds, keyword, "")
        for keyword in ("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"):
            setattr(ds, keyword, "")
        # What was lost stays lost in whatever is derived from it (PS3.3 C.7.6.1.1.5); highdicom copies it from here.
        # Many a source says neither ratio nor method; it is no less lossy for that.
        if str(self.header.get(LOSSY[0]) or "") == "01":
            for keyword in LOSSY:
                if self.header.get(keyword):
                    ds[keyword] = self.header[keyword]
        return ds


def read_source(manifest: Manifest) -> SourceSeries:
    """Gather what results need of their source.

    Raises
    ------
    ResultError
        The first instance cannot be read any more, or the series lacks what a result must reference.
    """
    first = manifest.instances[0]
    if not first.frame_of_reference_uid:
        raise ResultError(
            f"series {first.series_instance_uid} has no Frame of Reference UID (0020,0052): a segmentation of it "
            "would lie nowhere; correct it at the modality or in the archive and send the series again"
        )
    slices = tuple(_slice(manifest, k) for k in range(len(manifest.slices)))
    pixels = first.pixels
    if pixels is None:
        raise ResultError(f"instance {first.sop_instance_uid} has no pixel data")
    return SourceSeries(
        header=_read_header(Path(manifest.root) / first.path, first.sop_instance_uid),
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        shape=(len(slices), pixels.rows, pixels.columns),
        slices=slices,
        instances=tuple((item.sop_class_uid, item.sop_instance_uid) for item in manifest.instances),
        spacing_between_slices=_mean_spacing(slices),
    )


def decimal(value: float) -> DSfloat:
    """A number as a Decimal String of at most 16 characters (PS3.5 6.2)."""
    return DSfloat(value, auto_format=True)


def decimals(values: tuple[float, ...]) -> list[DSfloat]:
    """Numbers as Decimal Strings."""
    return [decimal(value) for value in values]


def _slice(manifest: Manifest, k: int) -> SourceSlice:
    reference = manifest.slices[k]
    instance = manifest.instances[reference.instance]
    frame = instance.frames[reference.frame]
    if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
        raise ResultError(f"slice {k} of series {instance.series_instance_uid} says not where it lies")
    return SourceSlice(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        frame_number=None if instance.sop_class_uid == CTImageStorage else frame.number,
        position=frame.position,
        orientation=frame.orientation,
        spacing=frame.pixel_spacing,
        thickness=frame.slice_thickness or 0.0,
        rescale=(
            1.0 if frame.rescale_slope is None else frame.rescale_slope,
            0.0 if frame.rescale_intercept is None else frame.rescale_intercept,
        ),
    )


def _mean_spacing(slices: tuple[SourceSlice, ...]) -> float:
    if len(slices) < 2:
        return slices[0].thickness
    ends: npt.NDArray[np.float64] = np.array([slices[0].position, slices[-1].position])
    return float(np.linalg.norm(ends[1] - ends[0])) / (len(slices) - 1)


def _read_header(path: Path, sop_instance_uid: str) -> Dataset:
    # pydicom's warnings quote the values that it dislikes, and here those are a patient's.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header: Dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except (OSError, InvalidDicomError, ValueError, LookupError) as error:
            raise ResultError(
                f"instance {sop_instance_uid} cannot be read any more ({type(error).__name__}); was it moved or purged?"
            ) from error
        _drop_unreadable(header, sop_instance_uid)
    return header


def _drop_unreadable(header: Dataset, sop_instance_uid: str) -> None:
    """Remove attributes whose value is not what their VR says: a weight of "abc" must not cost the report."""
    for tag in list(header.keys()):
        try:
            header[tag]
        except (BytesLengthException, ValueError, TypeError, ArithmeticError, LookupError, NotImplementedError):
            logger.warning("instance %s: %s cannot be read and is left out of the results", sop_instance_uid, tag)
            del header[tag]
    header.decode()
