"""Which lesions a DICOM SEG shows: truth that a person drew and coded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from m3node.errors import InputRejected
from m3node.evaluation.cases.label_maps import parts_of
from m3node.identity import DEVICE_UID
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.intake.series.seg_reference import LIVER_CODES
from m3node.intake.series.sop_classes import SEGMENTATION
from m3node.liver.from_seg import lay_frames
from m3node.liver.seg_reader import SOP_CLASSES, read_frames, read_liver_frames
from m3node.rejection import Reason

LESION_CATEGORIES = frozenset({("SCT", "49755003"), ("SRT", "M-01000")})
"""Scheme and value of Segmented Property Category "Morphologically Altered Structure" (PS3.16 CID 7150)."""

LESION_TYPES = frozenset(
    {
        ("SCT", "108369006"),  # neoplasm
        ("SRT", "M-8FFFF"),
        ("SCT", "52988006"),  # lesion
        ("SCT", "4147007"),  # mass
        ("SRT", "M-03000"),
        ("SCT", "14799000"),  # neoplasm, secondary
        ("SRT", "M-80006"),
        ("SCT", "86049000"),  # neoplasm, primary
        ("SRT", "M-80003"),
        ("SCT", "367651003"),  # malignant neoplasm
        ("SCT", "25370001"),  # hepatocellular carcinoma
        ("SCT", "441457006"),  # cyst
    }
)
"""Scheme and value of Segmented Property Types that are lesions, whatever their category."""

_HEADER_TAGS = ["SOPClassUID", "DeviceUID"]


def seg_files(folder: Path) -> tuple[Path, ...]:
    """Segmentations below a folder, by name.

    Raises
    ------
    InputRejected
        One is a result of m3node's own: no detector is judged by what it said itself.
    """
    found: list[Path] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
        except (InvalidDicomError, OSError, EOFError, ValueError):
            continue  # masks, case.toml; what should have been CT is missed by whoever reads the CT
        if str(header.get("SOPClassUID", "")) not in SOP_CLASSES | {SEGMENTATION}:
            continue
        if str(header.get("DeviceUID", "")) == DEVICE_UID:
            raise InputRejected(
                Reason.OWN_OBJECT,
                f"{path.name} is a SEG of m3node's own and no truth; put in what a person drew, or remove it",
            )
        found.append(path)
    return tuple(found)


def read_seg_liver(path: Path, volume: CTVolume) -> VoxelMask | None:
    """Take the liver of a SEG; None when no segment is coded as liver."""
    frames = read_liver_frames(path, volume)
    return None if frames is None else lay_frames(frames, volume.geometry)


def read_seg_lesions(path: Path, volume: CTVolume) -> tuple[VoxelMask, ...] | None:
    """Take the lesions of a SEG.

    Parameters
    ----------
    path : Path
        BINARY, FRACTIONAL or LABELMAP.
    volume : CTVolume
        The stack that it is laid on.

    Returns
    -------
    tuple of VoxelMask or None
        Each segment that is coded as lesion, of the liver or of nothing named, is one; a single such segment is cut
        into its parts that do not touch.
        None when no segment is coded as lesion: nobody said that there is none.

    Raises
    ------
    InputRejected
        It does not fit the stack, or cannot be read.
    """
    numbers: list[int] = []

    def first_look(seg: Dataset) -> dict[int, Dataset]:
        numbers.extend(_lesion_segments(seg))
        return {}

    read_frames(path, volume, first_look)
    masks: list[VoxelMask] = []
    for number in numbers:
        frames = read_frames(path, volume, _only(number))
        mask = lay_frames(frames, volume.geometry) if frames is not None else VoxelMask.empty(volume.geometry.shape)
        if mask.count == 0:
            raise InputRejected(
                Reason.MIXED_GEOMETRY, f"{path.name}: segment {number} lies on none of the stack's slices"
            )
        masks.append(mask.cropped())
    if not masks:
        return None
    return parts_of(masks[0]) if len(masks) == 1 else tuple(masks)


def _only(number: int) -> Callable[[Dataset], dict[int, Dataset]]:
    return lambda seg: {number: _lesion_segments(seg)[number]}


def _lesion_segments(seg: Dataset) -> dict[int, Dataset]:
    return {
        int(item.get("SegmentNumber", 0)): item
        for item in seg.get("SegmentSequence", ())
        if (
            _among(item.get("SegmentedPropertyTypeCodeSequence", ()), LESION_TYPES)
            or _among(item.get("SegmentedPropertyCategoryCodeSequence", ()), LESION_CATEGORIES)
        )
        and _may_be_in_the_liver(item)
    }


def _may_be_in_the_liver(segment: Dataset) -> bool:
    regions = segment.get("AnatomicRegionSequence", ())
    return not regions or _among(regions, LIVER_CODES)


def _among(codes: Iterable[Dataset], known: frozenset[tuple[str, str]]) -> bool:
    return any((str(code.get("CodingSchemeDesignator", "")), str(code.get("CodeValue", ""))) in known for code in codes)
