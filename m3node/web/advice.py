"""What to do about each reason, for who sees it on the page; ``docs/reasons.md`` has the same words."""

from __future__ import annotations

from m3node.rejection import Reason

WHAT_TO_DO: dict[Reason, str] = {
    Reason.NOT_DICOM: "Nothing, when it is a text file or a viewer on a patient CD; otherwise export again as DICOM.",
    Reason.UNREADABLE: (
        "Send or copy it again, a ZIP without a password; when it comes back the same, the sender wrote it so."
    ),
    Reason.DICOMDIR: "Give the whole CD: the images beside it are read.",
    Reason.UNSAFE_ARCHIVE: "Pack it again from the files themselves, or raise the limit when it is honest.",
    Reason.MISSING_UID: "Export again with UIDs; anonymisers are the usual cause.",
    Reason.INVALID_UID: "Export again with UIDs; anonymisers are the usual cause.",
    Reason.NOT_CT: "Nothing.",
    Reason.OWN_OBJECT: "Nothing; this is what keeps a routing archive from making a loop.",
    Reason.LOCALIZER: "Nothing.",
    Reason.DERIVED: "Send the original axial series.",
    Reason.NO_PIXEL_DATA: "Send it again with its pixels.",
    Reason.UNSUPPORTED_PIXELS: (
        "Send the original series; have the sender transcode to any syntax in the README's table."
    ),
    Reason.UNDECODABLE: "Send the instance that the message names again.",
    Reason.MISSING_GEOMETRY: "Send the original series; secondary captures have none.",
    Reason.TILTED: "Send an untilted axial reconstruction.",
    Reason.SHEARED: "Send an untilted axial reconstruction.",
    Reason.UNEVEN_SPACING: "Send the whole series again; what arrived stays, and the missing slice makes it complete.",
    Reason.DUPLICATE_POSITION: "Send the reconstructions as separate series.",
    Reason.TOO_FEW_SLICES: "Lower the setting when that is really all there is.",
    Reason.MIXED_GEOMETRY: "Send the reconstructions as separate series.",
    Reason.MIXED_PATIENTS: "Correct it at the source first: this is a mix-up.",
    Reason.MIXED_STUDIES: "Correct it at the source first: this is a mix-up.",
    Reason.NOT_SELECTED: "Change the rule, or send the reconstruction that is wanted.",
    Reason.EARLIER_PURGED: (
        "Nothing, when the delivered results are enough: they stay. Otherwise send the whole series under a "
        "new Series Instance UID. When it happens often, raise retention.received_hours."
    ),
    Reason.FAILED: "The input is kept. Look into the log of that time and report it.",
}
