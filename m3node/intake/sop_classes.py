"""The SOP classes and transfer syntaxes that the node takes in, in one place for listener, README and judge."""

from __future__ import annotations

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.2"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

MULTI_FRAME_CT = frozenset({ENHANCED_CT_IMAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE})
CT = MULTI_FRAME_CT | {CT_IMAGE}
"""What becomes a volume."""

DECODABLE_TRANSFER_SYNTAXES: dict[str, str] = {
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian (retired)",
    "1.2.840.10008.1.2.4.90": "JPEG 2000, lossless only",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, process 14, selection value 1",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, process 14",
    "1.2.840.10008.1.2.4.80": "JPEG-LS, lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS, near-lossless",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline, 8 bit",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
"""UID to name of every transfer syntax whose pixels the core decodes; the others are refused at negotiation.

12-bit JPEG (.51, .53, .55) decodes neither with GDCM's wheel nor with a library under a permissive licence.
"""
