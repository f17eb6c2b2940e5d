"""What one instance says of itself, read once on arrival, so that nobody opens the file again to sort or size it."""

from __future__ import annotations

from dataclasses import dataclass

Vector3 = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Geometry and rescale of one frame; a single-frame instance has exactly one.

    Attributes
    ----------
    number : int
        Frame number, from 1 (PS3.3 C.7.6.6).
    position : Vector3 or None
        Image Position (Patient), mm, LPS: centre of the first voxel (PS3.3 C.7.6.2.1.1).
    orientation : Orientation or None
        Image Orientation (Patient): direction of a row, then of a column, unit vectors, LPS.
    pixel_spacing : tuple of float or None
        Distance between rows, then between columns, mm.
    slice_thickness : float or None
        mm.
    rescale_slope, rescale_intercept : float or None
        Stored value to HU (PS3.3 C.11.1.1.2).
    acquisition_number, temporal_position : int or None
        What separates stacks at equal positions.
    kernel : str
        Convolution Kernel, values joined by a backslash; empty when absent.
    image_type : tuple of str
        Image Type (or Frame Type) values.
    """

    number: int
    position: Vector3 | None
    orientation: Orientation | None
    pixel_spacing: tuple[float, float] | None
    slice_thickness: float | None
    rescale_slope: float | None
    rescale_intercept: float | None
    acquisition_number: int | None
    temporal_position: int | None
    kernel: str
    image_type: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How the pixels lie in the file (PS3.3 C.7.6.3).

    Attributes
    ----------
    offset, length : int
        Where the value of Pixel Data begins in the file, and its length in bytes; -1 for both when the data set
        is deflated or the pixels are encapsulated and must be found by the decoder.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    number_of_frames: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """One instance's identity, geometry and pixel layout.

    Attributes
    ----------
    path : str
        File, relative to the root it was found under (the spool, or the input of ``run``).
    sha256 : str
        SHA-256 of the encoded data set, file meta information excluded, so that one instance has one digest
        however it arrived in this encoding.
    patient_digest : str
        SHA-256 over Patient ID and its issuer, to compare patients without holding an identifier.
    device_uid : str
        Device UID, by which our own objects are known (PS3.3 C.7.5.1).
    sender : str
        Calling AE title, from the file meta information's Source Application Entity Title; empty for files.
    received_at : float
        Seconds since the epoch; 0 for files of an input folder.
    pixels : PixelLayout or None
        None when the instance has no pixel data.
    frames : tuple of FrameHeader
        One for each frame of a CT object; empty for every other SOP class.
    """

    path: str
    sha256: str
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    patient_digest: str
    modality: str
    image_type: tuple[str, ...]
    series_number: int | None
    series_description: str
    protocol_name: str
    body_part_examined: str
    manufacturer: str
    patient_position: str
    gantry_tilt: float | None
    instance_number: int | None
    device_uid: str
    sender: str
    received_at: float
    pixels: PixelLayout | None
    frames: tuple[FrameHeader, ...]
