"""Reads one DICOM image as it is to be shown, without an attribute of the patient's."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from m3node.attention.images import display
from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.images.limits import check_size, check_spacing
from m3node.attention.images.names import shown
from m3node.attention.images.orientation import UNKNOWN, Sides, sides_by_cosines, sides_by_letters
from m3node.attention.images.picture import grey_to_rgb, is_grey
from m3node.errors import ImageError, InputRejected
from m3node.imaging.decode import CODEC_ERRORS, decode_frames
from m3node.imaging.native import native_frames
from m3node.imaging.rescale import Stored
from m3node.imaging.windows import ct_windows
from m3node.intake.series import sop_classes
from m3node.intake.series.elements import decimals, text, texts
from m3node.intake.series.header import FrameHeader, InstanceHeader, PixelLayout
from m3node.intake.series.part10 import PARSER_ERRORS, OpenedFile, open_part10
from m3node.intake.series.reading import frame_headers, pixel_layout
from m3node.intake.series.stacks import is_localizer
from m3node.rejection import Reason

PROJECTIONS = frozenset({"CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"})
"""Modalities whose images are made by X-rays through the whole body (PS3.3 C.7.3.1.1.1)."""

_TAGS = (
    *display.TAGS,
    0x00080008,  # Image Type
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080060,  # Modality
    0x00080068,  # Presentation Intent Type
    0x00102210,  # Anatomical Orientation Type
    0x00181164,  # Imager Pixel Spacing
    0x00182010,  # Nominal Scanned Pixel Spacing
    0x0020000E,  # Series Instance UID
    0x00200020,  # Patient Orientation
    0x00200032,  # Image Position (Patient)
    0x00200037,  # Image Orientation (Patient)
    0x00280002,  # Samples per Pixel
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # Pixel Spacing
    0x00280034,  # Pixel Aspect Ratio
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x52009229,  # Shared Functional Groups Sequence
    0x52009230,  # Per-Frame Functional Groups Sequence
)
_PALETTE_TAGS = [
    0x00280103,  # Pixel Representation
    *range(0x00281101, 0x00281104),  # Palette Color Lookup Table Descriptors
    *range(0x00281201, 0x00281204),  # their data
    *range(0x00281221, 0x00281224),  # their data in segments
]
_SPACINGS = (0x00280030, 0x00181164, 0x00182010)
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2", ""})


def read_dicom(path: Path) -> InputImage:
    """Read a single-frame DICOM image.

    A slice of CT (by SOP class; not a localizer) is rendered in the three windows that the model knows, as the detector
    does, whatever window the file names. Every other monochrome image is shown by `display.shown_greys`, colour as it
    is. Refused: several frames, as nothing says which is meant; raw detector values (For Processing), which no viewer
    shows.

    Raises
    ------
    ImageError
        What is wrong with it, and what to do.
    """
    name = shown(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's name values; what matters is judged here
            opened = open_part10(path, name=name, tags=_TAGS, digest=False)
            return _read(path, name, opened)
    except InputRejected as error:
        if error.reason is Reason.NOT_DICOM:
            raise ImageError(f"{name} is no PNG, JPEG or DICOM file; convert it to one of them") from error
        raise ImageError(error.message) from error
    except PARSER_ERRORS as error:
        # The parser's own words may hold a value of the patient's, so they are not repeated.
        raise ImageError(f"{name} is damaged: its attributes cannot be read; copy it again") from error


def _read(path: Path, name: str, opened: OpenedFile) -> InputImage:
    ds = opened.data_set
    layout = _layout(name, opened)
    frame = frame_headers(opened)[0]
    spacing, sides = _spacing(ds, frame), _sides(ds, frame)
    check_spacing(name, layout.rows, layout.columns, spacing)
    modality = text(ds, 0x00080060).upper()
    hu = None
    if layout.samples_per_pixel > 1 or layout.photometric_interpretation not in _GREY:
        rgb = _colour(path, name, layout)
        kind = ImageKind.XRAY if modality in PROJECTIONS and is_grey(rgb) else ImageKind.OTHER
    else:
        stored = _stored(path, name, opened, layout)
        if _is_slice_of_ct(ds, modality, frame):
            hu, kind = _hu(stored, ds, frame, name, little_endian=opened.little_endian), ImageKind.CT
            rgb = ct_windows(np.rint(np.clip(hu, -32768.0, 32767.0)).astype(np.int16))
        else:
            rgb = grey_to_rgb(display.shown_greys(stored, ds, little_endian=opened.little_endian))
            projection = modality in PROJECTIONS or is_localizer(frame)
            kind = ImageKind.XRAY if projection else ImageKind.OTHER
    return InputImage(
        path=path,
        rgb=rgb,
        kind=kind,
        spacing=spacing,
        hu=hu,
        patient_left=sides[0],
        patient_head=sides[1],
        series_uid=text(ds, 0x0020000E),
    )


def _layout(name: str, opened: OpenedFile) -> PixelLayout:
    """Read how the pixels lie, and refuse what cannot be shown as one image before a pixel is read."""
    if not opened.has_pixels:
        raise ImageError(f"{name} is a DICOM object without an image; name one that has pixels")
    layout = pixel_layout(opened)
    if layout.number_of_frames != 1:
        raise ImageError(
            f"{name} has {layout.number_of_frames} frames, and nothing says which one is asked about; "
            "save the frame as an image of its own"
        )
    if text(opened.data_set, 0x00080068).upper() == "FOR PROCESSING":
        raise ImageError(
            f"{name} holds raw detector values (Presentation Intent Type FOR PROCESSING), which are not for looking "
            "at; take the FOR PRESENTATION image of the same exposure"
        )
    check_size(name, layout.rows, layout.columns)
    allocated, stored = layout.bits_allocated, layout.bits_stored
    if allocated not in {8, 16, 32} or not 1 <= stored <= layout.high_bit + 1 <= allocated:
        raise ImageError(
            f"{name} has pixels of {stored} bits in {allocated}, up to bit {layout.high_bit}: not an image that can be "
            "shown; export it in 8 or 16 bits"
        )
    return layout


def _is_slice_of_ct(ds: Dataset, modality: str, frame: FrameHeader) -> bool:
    sop_class = text(ds, 0x00080016)
    ct = sop_class in sop_classes.CT or (not sop_class and modality == "CT")
    return ct and not is_localizer(frame)


def _hu(stored: Stored, ds: Dataset, frame: FrameHeader, name: str, *, little_endian: bool) -> npt.NDArray[np.float32]:
    if frame.rescale_slope is None or frame.rescale_intercept is None or frame.rescale_slope == 0:
        raise ImageError(f"{name} is a CT slice without Rescale Slope and Intercept, so its HU are not known")
    return display.rescaled(stored, frame.rescale_slope, frame.rescale_intercept)


def _spacing(ds: Dataset, frame: FrameHeader) -> tuple[float, float]:
    """Return mm between rows and columns; of Pixel Aspect Ratio only the ratio, and (1, 1) where nothing is said."""
    found = [frame.pixel_spacing, *(decimals(ds, tag, 2) for tag in _SPACINGS), decimals(ds, 0x00280034, 2)]
    for values in found:
        if values is not None and min(values) > 0:
            return values[0], values[1]
    return 1.0, 1.0


def _sides(ds: Dataset, frame: FrameHeader) -> Sides:
    if text(ds, 0x00102210).upper() == "QUADRUPED":
        return UNKNOWN
    sides = UNKNOWN if frame.orientation is None else sides_by_cosines(frame.orientation)
    return sides if sides != UNKNOWN else sides_by_letters(texts(ds, 0x00200020))  # cosines are 0 in some projections


def _stored(path: Path, name: str, opened: OpenedFile, layout: PixelLayout) -> Stored:
    header = _header(path, opened, layout)
    try:
        if layout.offset >= 0:
            return native_frames(path, header, [0])[0]
        return decode_frames(path, header, [0])[0]
    except (InputRejected, *CODEC_ERRORS) as error:
        raise _undecodable(name, opened.transfer_syntax_uid) from error


def _colour(path: Path, name: str, layout: PixelLayout) -> npt.NDArray[np.uint8]:
    """Decode colour of any kind to RGB of 8 bits."""
    try:
        pixels = pixel_array(path, index=0)
        if layout.photometric_interpretation == "PALETTE COLOR":
            palette = dcmread(path, force=True, specific_tags=_PALETTE_TAGS, stop_before_pixels=True)
            pixels = apply_color_lut(pixels, palette)
    except CODEC_ERRORS as error:
        raise _undecodable(name, "") from error
    if pixels.shape != (layout.rows, layout.columns, 3) or pixels.dtype.kind != "u":
        raise _undecodable(name, "")
    bits = layout.bits_stored if layout.samples_per_pixel > 1 else 8 * pixels.dtype.itemsize
    shift = max(0, bits - 8)
    return np.ascontiguousarray((pixels >> shift).astype(np.uint8))


def _undecodable(name: str, syntax: str) -> ImageError:
    how = f" (transfer syntax {shown(syntax)})" if syntax else ""
    return ImageError(
        f"the pixels of {name}{how} cannot be decoded: they are damaged, cut short or packed in a way that no decoder "
        "here knows; copy it again or export it uncompressed"
    )


def _header(path: Path, opened: OpenedFile, layout: PixelLayout) -> InstanceHeader:
    """Say of the instance what the decoders ask for; images of research sets often lack the rest."""
    ds = opened.data_set
    return InstanceHeader(
        path=path.name,
        sha256="",
        transfer_syntax_uid=opened.transfer_syntax_uid,
        sop_class_uid=text(ds, 0x00080016),
        sop_instance_uid=text(ds, 0x00080018),
        study_instance_uid="",
        series_instance_uid="",
        frame_of_reference_uid="",
        patient_digest="",
        modality="",
        image_type=(),
        series_number=None,
        series_description="",
        protocol_name="",
        body_part_examined="",
        manufacturer="",
        patient_position="",
        gantry_tilt=None,
        instance_number=None,
        device_uid="",
        sender="",
        received_at=0.0,
        pixels=layout,
        frames=(),
    )
