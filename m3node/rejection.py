"""Why an input is not used: one closed list of reasons, and the record that carries one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The kinds of rejection; the value is what ``findings.json`` and the log hold."""

    NOT_DICOM = "not-dicom"
    UNREADABLE = "unreadable"
    DICOMDIR = "dicomdir"
    UNSAFE_ARCHIVE = "unsafe-archive"
    NOT_CT = "not-ct"
    OWN_OBJECT = "own-object"
    MISSING_UID = "missing-uid"
    INVALID_UID = "invalid-uid"
    NO_PIXEL_DATA = "no-pixel-data"
    UNSUPPORTED_PIXELS = "unsupported-pixels"
    UNDECODABLE = "undecodable"
    LOCALIZER = "localizer"
    DERIVED = "derived"
    MISSING_GEOMETRY = "missing-geometry"
    TILTED = "tilted"
    SHEARED = "sheared"
    UNEVEN_SPACING = "uneven-spacing"
    DUPLICATE_POSITION = "duplicate-position"
    TOO_FEW_SLICES = "too-few-slices"
    MIXED_GEOMETRY = "mixed-geometry"
    MIXED_PATIENTS = "mixed-patients"
    MIXED_STUDIES = "mixed-studies"
    NOT_SELECTED = "not-selected"
    EARLIER_PURGED = "earlier-purged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A recorded reason.

    Attributes
    ----------
    reason : Reason
        The kind.
    message : str
        A sentence that a PACS administrator understands: what, which object, what to do.
    subject : str
        The UID, or the file's name relative to the input, that it is about.
    """

    reason: Reason
    message: str
    subject: str
