"""One file in, one `InstanceHeader` out: identity, geometry, rescale, where the pixels lie; the pixels stay on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom.dataset import Dataset

from m3node.errors import InputRejected
from m3node.intake.series import sop_classes
from m3node.intake.series.elements import decimal, decimals, identifying_bytes, integer_string, text, texts, unsigned
from m3node.intake.series.header import FrameHeader, InstanceHeader, Orientation, PixelLayout, Vector3
from m3node.intake.series.multiframe import multiframe_headers
from m3node.intake.series.part10 import PARSER_ERRORS, OpenedFile, open_part10
from m3node.intake.uid import is_uid
from m3node.rejection import Reason, Rejection

_UIDS = (
    (0x00080016, "SOP Class UID"),
    (0x00080018, "SOP Instance UID"),
    (0x0020000D, "Study Instance UID"),
    (0x0020000E, "Series Instance UID"),
)

_TAGS = (
    *(tag for tag, _ in _UIDS),
    0x00080008,  # Image Type
    0x00080060,  # Modality
    0x00080070,  # Manufacturer
    0x0008103E,  # Series Description
    0x00100020,  # Patient ID
    0x00100021,  # Issuer of Patient ID
    0x00180015,  # Body Part Examined
    0x00180050,  # Slice Thickness
    0x00181002,  # Device UID
    0x00181030,  # Protocol Name
    0x00181120,  # Gantry/Detector Tilt
    0x00181210,  # Convolution Kernel
    0x00185100,  # Patient Position
    0x00200011,  # Series Number
    0x00200012,  # Acquisition Number
    0x00200013,  # Instance Number
    0x00200032,  # Image Position (Patient)
    0x00200037,  # Image Orientation (Patient)
    0x00200052,  # Frame of Reference UID
    0x00200100,  # Temporal Position Identifier
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # Pixel Spacing
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x52009229,  # Shared Functional Groups Sequence
    0x52009230,  # Per-Frame Functional Groups Sequence
)


def read_header(path: Path, root: Path, *, received_at: float = 0.0) -> InstanceHeader:
    """Read what an instance says of itself.

    Parameters
    ----------
    path : Path
        The file.
    root : Path
        Folder that the header's ``path`` is made relative to.
    received_at : float
        Seconds since the epoch; 0 for files of an input folder.

    Returns
    -------
    InstanceHeader
        Of any DICOM object with valid UIDs; ``frames`` only for the CT SOP classes.

    Raises
    ------
    InputRejected
        ``NOT_DICOM``, ``DICOMDIR``, ``UNREADABLE``, ``MISSING_UID`` or ``INVALID_UID``.
    """
    relative = os.path.relpath(path, root)
    opened = open_part10(path, name=relative, tags=_TAGS)
    try:
        return _header(opened, relative, received_at)
    except PARSER_ERRORS as error:
        raise InputRejected(
            Reason.UNREADABLE, f"{relative} is damaged: its attributes cannot be read; send it again"
        ) from error


def read_headers(
    paths: Iterable[Path], root: Path, *, workers: int | None = None
) -> Iterator[InstanceHeader | Rejection]:
    """Read many headers, in the order of ``paths``.

    Hashing and reading release the interpreter's lock, parsing does not: more than two threads only
    wait for each other.

    Parameters
    ----------
    paths : iterable of Path
        Files.
    root : Path
        As for `read_header`.
    workers : int, optional
        Threads; 2 by default.

    Yields
    ------
    InstanceHeader or Rejection
        A rejection's subject is the file's name relative to ``root``.
    """

    def read(path: Path) -> InstanceHeader | Rejection:
        try:
            return read_header(path, root)
        except InputRejected as error:
            return Rejection(error.reason, error.message, os.path.relpath(path, root))

    with ThreadPoolExecutor(workers or 2) as pool:
        yield from pool.map(read, paths)


def _header(opened: OpenedFile, name: str, received_at: float) -> InstanceHeader:
    ds = opened.data_set
    sop_class = text(ds, 0x00080016)
    if sop_classes.MEDIA_STORAGE_DIRECTORY in {sop_class, text(opened.meta, 0x00020002)}:
        raise InputRejected(
            Reason.DICOMDIR, f"{name} is a DICOMDIR, an index of a medium; its images are read directly"
        )
    uids = [_uid(ds, tag, what, name) for tag, what in _UIDS]
    patient = hashlib.sha256(identifying_bytes(ds, 0x00100020) + b"\0" + identifying_bytes(ds, 0x00100021))
    return InstanceHeader(
        path=name,
        sha256=opened.sha256,
        transfer_syntax_uid=opened.transfer_syntax_uid,
        sop_class_uid=uids[0],
        sop_instance_uid=uids[1],
        study_instance_uid=uids[2],
        series_instance_uid=uids[3],
        frame_of_reference_uid=text(ds, 0x00200052),
        patient_digest=patient.hexdigest(),
        modality=text(ds, 0x00080060),
        image_type=texts(ds, 0x00080008),
        series_number=integer_string(ds, 0x00200011),
        series_description=text(ds, 0x0008103E),
        protocol_name=text(ds, 0x00181030),
        body_part_examined=text(ds, 0x00180015),
        manufacturer=text(ds, 0x00080070),
        patient_position=text(ds, 0x00185100),
        gantry_tilt=decimal(ds, 0x00181120),
        instance_number=integer_string(ds, 0x00200013),
        device_uid=text(ds, 0x00181002),
        sender=text(opened.meta, 0x00020016),
        received_at=received_at,
        pixels=pixel_layout(opened) if opened.has_pixels else None,
        frames=frame_headers(opened) if sop_class in sop_classes.CT else (),
    )


def _uid(ds: Dataset, tag: int, what: str, name: str) -> str:
    value = text(ds, tag)
    if not value:
        raise InputRejected(
            Reason.MISSING_UID, f"{name} has no {what}; it cannot be stored or answered, correct it at its source"
        )
    if not is_uid(value):
        raise InputRejected(
            Reason.INVALID_UID,
            f"the {what} of {name} is not a valid UID (digits and dots, at most 64); correct it at its source",
        )
    return value


def pixel_layout(opened: OpenedFile) -> PixelLayout:
    """Read how the pixels lie in an opened file."""
    ds = opened.data_set

    def number(tag: int) -> int:
        return unsigned(ds, tag, little_endian=opened.little_endian) or 0

    allocated = number(0x00280100)
    stored = number(0x00280101) or allocated
    high = unsigned(ds, 0x00280102, little_endian=opened.little_endian)
    return PixelLayout(
        rows=number(0x00280010),
        columns=number(0x00280011),
        samples_per_pixel=number(0x00280002) or 1,
        photometric_interpretation=text(ds, 0x00280004),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high is None else high,
        pixel_representation=number(0x00280103),
        number_of_frames=integer_string(ds, 0x00280008) or 1,
        offset=opened.pixel_offset,
        length=opened.pixel_length,
    )


def frame_headers(opened: OpenedFile) -> tuple[FrameHeader, ...]:
    """Read geometry and rescale of each frame of a CT object."""
    ds = opened.data_set
    image_type = texts(ds, 0x00080008)
    if text(ds, 0x00080016) in sop_classes.MULTI_FRAME_CT:
        return multiframe_headers(ds, image_type, little_endian=opened.little_endian)
    position = decimals(ds, 0x00200032, 3)
    orientation = decimals(ds, 0x00200037, 6)
    spacing = decimals(ds, 0x00280030, 2)
    return (
        FrameHeader(
            number=1,
            position=_vector(position),
            orientation=_orientation(orientation),
            pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
            slice_thickness=decimal(ds, 0x00180050),
            rescale_slope=decimal(ds, 0x00281053),
            rescale_intercept=decimal(ds, 0x00281052),
            acquisition_number=integer_string(ds, 0x00200012),
            temporal_position=integer_string(ds, 0x00200100),
            kernel=text(ds, 0x00181210),
            image_type=image_type,
        ),
    )


def _vector(values: tuple[float, ...] | None) -> Vector3 | None:
    return (values[0], values[1], values[2]) if values else None


def _orientation(values: tuple[float, ...] | None) -> Orientation | None:
    return (values[0], values[1], values[2], values[3], values[4], values[5]) if values else None
