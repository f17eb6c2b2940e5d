"""``attention.sc.dcm``: where the model looked, as pictures (Multi-frame True Color Secondary Capture, PS3.3 A.8.5)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, MultiFrameTrueColorSecondaryCaptureImageStorage

from m3node.errors import InputRejected, ResultError
from m3node.imaging.assemble import geometry_of, read_slices
from m3node.imaging.volume import HUArray
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE
from m3node.results.attention.picture import ShownSlice, draw_attention, title
from m3node.results.attention.references import refer_in_common, refer_to_reports
from m3node.results.dress import Job, content_datetime, dress, plain
from m3node.results.frames import source_image
from m3node.results.objects import ObjectKind
from m3node.results.source import LOSSY

_PAGE_NUMBER_VECTOR = Tag("PageNumberVector")


def build_capture(job: Job) -> bytes:
    """Build the capture: one frame for each `KeyAttention`, in their order.

    Raises
    ------
    ResultError
        A slice cannot be read any more.
    """
    shown = job.findings.attention
    planes = _planes(job)
    pictures = draw_attention(
        [ShownSlice(item, planes[item.slice_index]) for item in shown], job.findings, geometry_of(job.manifest)
    )
    attributes = job.attributes(ObjectKind.ATTENTION_CAPTURE)
    equipment = attributes.pop("contributing_equipment")
    sop = SOPClass(
        study_instance_uid=job.source.study_instance_uid,
        sop_class_uid=MultiFrameTrueColorSecondaryCaptureImageStorage,
        modality="OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id="",
        patient_name="",
        patient_birth_date="",
        patient_sex="",
        accession_number="",
        study_id="",
        study_date="",
        study_time="",
        referring_physician_name="",
        **attributes,
    )
    sop.ContributingEquipmentSequence = equipment
    # Synthetic: drawn, not taken from a screen.
    sop.ConversionType = "SYN"
    sop.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    sop.PatientOrientation = ""
    # Without a body part Laterality would be required (PS3.3 C.7.3.1, type 2C).
    sop.BodyPartExamined = "LIVER"
    when = content_datetime(job)
    sop.DateOfSecondaryCapture = when.strftime("%Y%m%d")
    sop.TimeOfSecondaryCapture = when.strftime("%H%M%S.%f")
    titles = "; ".join(f"{number}: {title(item, job.findings)}" for number, item in enumerate(shown, start=1))
    sop.ImageComments = plain(f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE} Frames: {titles}.", 10240)
    _add_pixels(sop, pictures)
    sop.LossyImageCompression = "00"
    image = job.source.reference_image(shown[0].slice_index)
    for keyword in LOSSY:
        if keyword in image:
            sop[keyword] = image[keyword]
    _add_source(sop, job)
    refer_to_reports(sop, job)
    refer_in_common(sop, job)
    return dress(sop, job)


def _planes(job: Job) -> dict[int, HUArray]:
    slices = sorted({item.slice_index for item in job.findings.attention})
    try:
        hu = read_slices(job.manifest, slices)
    except InputRejected as error:
        raise ResultError(f"a key slice cannot be read any more: {error.message}") from error
    return dict(zip(slices, hu, strict=True))


def _add_pixels(sop: Dataset, pictures: Iterable[npt.NDArray[np.uint8]]) -> None:
    frames: list[bytes] = []
    for picture in pictures:
        sop.Rows, sop.Columns, sop.SamplesPerPixel = picture.shape
        frames.append(picture.tobytes())
    sop.NumberOfFrames = len(frames)
    sop.PhotometricInterpretation = "RGB"
    sop.PlanarConfiguration = 0
    sop.BitsAllocated = sop.BitsStored = 8
    sop.HighBit = 7
    sop.PixelRepresentation = 0
    # The words on the pictures are about model and slice; nothing of the patient is among them.
    sop.BurnedInAnnotation = "NO"
    sop.RecognizableVisualFeatures = "NO"
    if len(frames) > 1:
        sop.FrameIncrementPointer = _PAGE_NUMBER_VECTOR
        sop.PageNumberVector = list(range(1, len(frames) + 1))
    padding = sum(map(len, frames)) % 2
    sop.PixelData = b"".join([*frames, b"\0" * padding])
    sop["PixelData"].VR = "OB"


def _add_source(sop: Dataset, job: Job) -> None:
    """Name the slice of each frame, in the frames' order."""
    sop.DerivationDescription = plain("Key slices of the source with the detector's attention drawn over them", 1024)
    slices = dict.fromkeys(item.slice_index for item in job.findings.attention)
    sop.SourceImageSequence = [source_image(job.source.slices[k]) for k in slices]
