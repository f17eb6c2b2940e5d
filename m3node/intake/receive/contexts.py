"""What the listener accepts: SOP classes and, for each, the transfer syntaxes that the core can decode.

Data, not code: the negotiation and the README's support table are both made from it. An offer that is not here is
refused at negotiation, so that a sender hears it before it sends a byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """A transfer syntax and what decodes it here."""

    name: str
    uid: str
    decoder: str


@dataclass(frozen=True, slots=True)
class SOPClass:
    """An accepted SOP class and what becomes of its instances."""

    name: str
    uid: str
    use: str
    transfer_syntaxes: tuple[TransferSyntax, ...]


UNCOMPRESSED = (
    TransferSyntax("Explicit VR Little Endian", "1.2.840.10008.1.2.1", "pydicom"),
    TransferSyntax("Implicit VR Little Endian", "1.2.840.10008.1.2", "pydicom"),
    TransferSyntax("Deflated Explicit VR Little Endian", "1.2.840.10008.1.2.1.99", "pydicom"),
    TransferSyntax("Explicit VR Big Endian (retired)", "1.2.840.10008.1.2.2", "pydicom"),
)

COMPRESSED = (
    TransferSyntax("RLE Lossless", "1.2.840.10008.1.2.5", "pydicom"),
    TransferSyntax("JPEG-LS Lossless", "1.2.840.10008.1.2.4.80", "GDCM"),
    TransferSyntax("JPEG-LS Near-lossless", "1.2.840.10008.1.2.4.81", "GDCM"),
    TransferSyntax("JPEG 2000 Lossless", "1.2.840.10008.1.2.4.90", "OpenJPEG"),
    TransferSyntax("JPEG 2000", "1.2.840.10008.1.2.4.91", "OpenJPEG"),
    TransferSyntax("JPEG Lossless, first-order prediction", "1.2.840.10008.1.2.4.70", "GDCM"),
    TransferSyntax("JPEG Lossless (process 14)", "1.2.840.10008.1.2.4.57", "GDCM"),
    TransferSyntax("JPEG Baseline, 8 bit", "1.2.840.10008.1.2.4.50", "GDCM"),
)
"""In the order of preference: a sender that offers several in one context gets the first of these."""

_IMAGES = UNCOMPRESSED + COMPRESSED

VERIFICATION = SOPClass("Verification", "1.2.840.10008.1.1", "answered", UNCOMPRESSED)

STORAGE = (
    SOPClass("CT Image Storage", "1.2.840.10008.5.1.4.1.1.2", "analysed", _IMAGES),
    SOPClass("Enhanced CT Image Storage", "1.2.840.10008.5.1.4.1.1.2.1", "analysed", _IMAGES),
    SOPClass("Legacy Converted Enhanced CT Image Storage", "1.2.840.10008.5.1.4.1.1.2.2", "analysed", _IMAGES),
    SOPClass("Segmentation Storage", "1.2.840.10008.5.1.4.1.1.66.4", "liver region", _IMAGES),
    # What follows is accepted because an archive that routes everything sends our own results back to us, and a
    # refusal would stand in its log as an error. It is kept and never analysed.
    SOPClass("Comprehensive 3D SR Storage", "1.2.840.10008.5.1.4.1.1.88.34", "kept, not used", UNCOMPRESSED),
    SOPClass("Enhanced SR Storage", "1.2.840.10008.5.1.4.1.1.88.22", "kept, not used", UNCOMPRESSED),
    SOPClass(
        "Grayscale Softcopy Presentation State Storage", "1.2.840.10008.5.1.4.1.1.11.1", "kept, not used", UNCOMPRESSED
    ),
    SOPClass(
        "Multi-frame True Color Secondary Capture Image Storage",
        "1.2.840.10008.5.1.4.1.1.7.4",
        "kept, not used",
        UNCOMPRESSED,
    ),
    SOPClass("Parametric Map Storage", "1.2.840.10008.5.1.4.1.1.30", "kept, not used", UNCOMPRESSED),
)

COMMITMENT = SOPClass("Storage Commitment Push Model", "1.2.840.10008.1.20.1", "reports taken", UNCOMPRESSED[:2])
"""Only from destinations that are asked for it; the peer that reports is the SCP, though it opens the association."""

SOP_CLASSES = (VERIFICATION, *STORAGE, COMMITMENT)


def presentation_contexts(*, store: bool = True, report: bool = True) -> list[PresentationContext]:
    """Build the contexts that the listener supports, for pynetdicom.

    Parameters
    ----------
    store, report : bool
        Whether the caller may store instances, and report storage commitment; verify it may always.

    Returns
    -------
    list of PresentationContext
        A new list each time, since pynetdicom changes them.
    """
    offered = (VERIFICATION, *(STORAGE if store else ()))
    contexts = [build_context(sop.uid, [syntax.uid for syntax in sop.transfer_syntaxes]) for sop in offered]
    if report:
        context = build_context(COMMITMENT.uid, [syntax.uid for syntax in COMMITMENT.transfer_syntaxes])
        # Who opens an association is the SCU unless roles are negotiated (PS3.7 D.3.3.4); this caller is the SCP.
        context.scu_role, context.scp_role = False, True
        contexts.append(context)
    return contexts


def support_rows() -> list[tuple[str, str, str, str]]:
    """Return the support table: kind, name, UID, and what is done with it or what decodes it.

    One row a SOP class (kind ``SOP class``), then one row a transfer syntax (kind ``transfer syntax``).
    """
    rows = [("SOP class", sop.name, sop.uid, sop.use) for sop in SOP_CLASSES]
    rows += [("transfer syntax", syntax.name, syntax.uid, syntax.decoder) for syntax in _IMAGES]
    return rows
