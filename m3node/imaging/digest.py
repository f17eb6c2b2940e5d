"""What an instance shows, as a digest: equal for one image in two encodings, different once anything that counts is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from m3node.imaging.decode import decode_frames
from m3node.imaging.native import native_frames
from m3node.intake.series import sop_classes
from m3node.intake.series.header_json import header_to_dict
from m3node.intake.series.reading import read_header

_IDENTITY = (
    "sop_class_uid",
    "sop_instance_uid",
    "study_instance_uid",
    "series_instance_uid",
    "frame_of_reference_uid",
    "patient_digest",
    "device_uid",
    "frames",
)


def content_digest(path: Path) -> str:
    """SHA-256 over decoded pixels, geometry, rescale and identity.

    An archive that transcodes sends one instance again in other bytes; this digest stays. It changes with a pixel, a
    position, an orientation, a spacing, a rescale, Image Type, kernel, a UID or the Patient ID. Objects that are not CT
    have the digest of their encoded data set: any change of theirs counts.

    Raises
    ------
    InputRejected
        The file cannot be read, or its pixels cannot be decoded.
    """
    header = read_header(path, path.parent)
    if header.sop_class_uid not in sop_classes.CT or header.pixels is None:
        return header.sha256
    tree = header_to_dict(header)
    digest = hashlib.sha256(json.dumps({name: tree[name] for name in _IDENTITY}, sort_keys=True).encode())
    digest.update(f"{header.pixels.rows}x{header.pixels.columns}".encode())
    read = native_frames if header.pixels.offset >= 0 else decode_frames
    for frame in range(header.pixels.number_of_frames):
        digest.update(read(path, header, [frame])[0].astype("<i4").tobytes())
    return digest.hexdigest()
