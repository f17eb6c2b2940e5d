"""What a received DICOM SEG (PS3.3 A.51) says of a liver: its segments, its frames and where those lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels

from m3node.errors import InputRejected
from m3node.imaging.geometry import FloatArray
from m3node.imaging.mask import BoolArray
from m3node.imaging.volume import CTVolume
from m3node.intake.series.part10 import PARSER_ERRORS, is_parsers_word
from m3node.intake.series.seg_reference import LIVER_CODES
from m3node.rejection import Reason

SOP_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
"""Segmentation Storage and Label Map Segmentation Storage."""

DEFERRED_BYTES = 4096
"""Longer values, the pixels above all, stay in the file."""


@dataclass(frozen=True, slots=True, eq=False)
class SegPlane:
    """Orientation and pixel grid that all frames share.

    Attributes
    ----------
    row, column, normal : ndarray, shape (3,)
        Unit directions of a row, of a column, and across; patient, LPS.
    spacing : tuple of float
        mm between rows, between columns.
    between : float or None
        mm between slices, where the SEG says it.
    """

    row: FloatArray
    column: FloatArray
    normal: FloatArray
    spacing: tuple[float, float]
    between: float | None


@dataclass(frozen=True, slots=True, eq=False)
class LiverFrames:
    """The frames of a SEG that may hold liver, or whatever else was asked for.

    Attributes
    ----------
    path : Path
        The file; pixels are decoded from it frame by frame.
    uid : str
        SOP Instance UID.
    kind : str
        Segmentation Type: BINARY, FRACTIONAL or LABELMAP.
    maximum : int
        Maximum Fractional Value.
    segments : tuple of int
        Numbers of the segments that make up the liver.
    algorithm : str
        Who made them, as the SEG says it.
    plane : SegPlane
        What all frames share.
    indices : tuple of int
        Positions of the frames in the pixel data, from 0.
    origins : ndarray, shape (n, 3)
        Image Position (Patient) of each.
    straddling : tuple of int or None
        Rows and columns, where frames of single bits begin in the middle of a byte.
    """

    path: Path
    uid: str
    kind: str
    maximum: int
    segments: tuple[int, ...]
    algorithm: str
    plane: SegPlane
    indices: tuple[int, ...]
    origins: FloatArray
    straddling: tuple[int, int] | None

    def decode(self, chosen: Iterable[int]) -> Iterator[BoolArray]:
        """Decode frames by their place in ``indices``, one at a time: where is liver on it, shape (rows, columns).

        Raises
        ------
        InputRejected
            The pixels cannot be decoded.
        """
        indices = [self.indices[at] for at in chosen]
        if not indices:  # to pydicom an empty choice means every frame
            return
        try:
            found = iter_pixels(self.path, indices=indices)
            if self.straddling is not None:
                found = _straddling_frames(self.path, indices, self.straddling)
            for pixels in found:
                yield self._is_liver(pixels)
        except (ValueError, AttributeError, RuntimeError, NotImplementedError, OSError, EOFError) as error:
            # The decoder's own words may quote the data set.
            raise InputRejected(
                Reason.UNDECODABLE,
                f"SEG {self.uid}: its frames cannot be decoded ({type(error).__name__}); send it again",
            ) from error

    def _is_liver(self, pixels: npt.NDArray[Any]) -> BoolArray:
        if self.kind == "LABELMAP":
            return np.isin(pixels, self.segments)
        if self.kind == "FRACTIONAL":
            # In the stored type 2 × 255 would overflow.
            return np.asarray(pixels.astype(np.int64) * 2 >= self.maximum)
        return np.asarray(pixels != 0)


def read_liver_frames(path: Path, volume: CTVolume) -> LiverFrames | None:
    """Read which frames may hold liver, and where they lie.

    Parameters
    ----------
    path : Path
        BINARY, FRACTIONAL or LABELMAP segmentation.
    volume : CTVolume
        The stack; its sources tell whether the SEG was made from it, and where a frame without a position lies.

    Returns
    -------
    LiverFrames or None
        None when no segment is liver.

    Raises
    ------
    InputRejected
        Not a SEG, made from other images, without geometry, or damaged.
    """
    return read_frames(path, volume, _liver_segments)


def read_frames(path: Path, volume: CTVolume, choose: Callable[[Dataset], dict[int, Dataset]]) -> LiverFrames | None:
    """Do as `read_liver_frames` for other segments: ``choose`` takes them, by number, from the SEG's attributes."""
    seg = _read(path)
    uid = str(seg.get("SOPInstanceUID", ""))
    try:
        return _chosen_frames(seg, uid, path, volume, choose(seg))
    except (OSError, *PARSER_ERRORS) as error:
        if isinstance(error, OSError) and not is_parsers_word(error):
            raise
        # An attribute that is absent or not what it should be; the words of the error may quote it.
        raise InputRejected(Reason.UNREADABLE, f"SEG {uid}: its attributes cannot be read; send it again.") from error


def _chosen_frames(
    seg: Dataset, uid: str, path: Path, volume: CTVolume, wanted: dict[int, Dataset]
) -> LiverFrames | None:
    if not wanted:
        return None
    _check_length(seg, uid)
    kind = str(seg.get("SegmentationType", "BINARY"))
    held = [
        (index, frame)
        for index, frame in enumerate(seg.get("PerFrameFunctionalGroupsSequence", ()))
        if kind == "LABELMAP" or _segment_number(seg, frame) in wanted
    ]
    if not held:
        raise InputRejected(
            Reason.MISSING_GEOMETRY, f"SEG {uid}: no frame belongs to its segment {next(iter(wanted))}."
        )
    _check_sources(uid, [frame for _, frame in held], volume)
    planes = [_plane(seg, frame, uid) for _, frame in held]
    for plane in planes[1:]:
        if not (
            np.allclose(plane.row, planes[0].row, atol=1e-3) and np.allclose(plane.column, planes[0].column, atol=1e-3)
        ):
            raise InputRejected(Reason.MIXED_GEOMETRY, f"SEG {uid}: its frames differ in orientation.")
    return LiverFrames(
        path=path,
        uid=uid,
        kind=kind,
        maximum=int(seg.get("MaximumFractionalValue", 255)),
        segments=tuple(wanted),
        algorithm=_algorithm(wanted),
        plane=planes[0],
        indices=tuple(index for index, _ in held),
        origins=np.stack([_origin(seg, frame, volume, uid) for _, frame in held]),
        straddling=_straddling(seg),
    )


def _read(path: Path) -> Dataset:
    try:
        seg = dcmread(path, defer_size=DEFERRED_BYTES)
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise InputRejected(
            Reason.UNREADABLE, f"{path.name} cannot be read as DICOM ({type(error).__name__})"
        ) from error
    if str(seg.get("SOPClassUID", "")) not in SOP_CLASSES:
        raise InputRejected(Reason.NOT_CT, f"{path.name} is no segmentation.")
    return seg


def _check_length(seg: Dataset, uid: str) -> None:
    """Refuse pixels that are cut short: pydicom decodes single bits past their end without a word."""
    pixels = seg.get_item("PixelData")
    if pixels is None:
        raise InputRejected(Reason.NO_PIXEL_DATA, f"SEG {uid}: it has no pixel data.")
    syntax = seg.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax.is_compressed:
        return  # the decoder counts frames itself
    voxels = int(seg.Rows) * int(seg.Columns) * int(seg.get("NumberOfFrames", 1) or 1)
    needed = (voxels * int(seg.BitsAllocated) + 7) // 8
    length = pixels.length if isinstance(pixels, RawDataElement) else len(pixels.value or b"")
    if length < needed:
        raise InputRejected(
            Reason.UNDECODABLE, f"SEG {uid}: its pixels are cut short ({length} of {needed} bytes); send it again."
        )


def _straddling(seg: Dataset) -> tuple[int, int] | None:
    if int(seg.BitsAllocated) != 1 or seg.file_meta.TransferSyntaxUID.is_compressed:
        return None
    rows, columns = int(seg.Rows), int(seg.Columns)
    return (rows, columns) if rows * columns % 8 else None


def _straddling_frames(path: Path, indices: Iterable[int], shape: tuple[int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Unpack frames of single bits that follow each other without a gap (PS3.5 8.1.1, 8.2).

    pydicom 3.0.1 reads each frame's bytes from the one that it begins in, but not the one that it ends in.
    """
    packed = np.frombuffer(dcmread(path).PixelData, dtype=np.uint8)
    length = shape[0] * shape[1]
    for index in indices:
        first, start = divmod(index * length, 8)
        bits = np.unpackbits(packed[first : first + (start + length + 7) // 8], bitorder="little")
        yield bits[start : start + length].reshape(shape)


def _is_liver(codes: Iterable[Dataset]) -> bool:
    return any(
        (str(code.get("CodingSchemeDesignator", "")), str(code.get("CodeValue", ""))) in LIVER_CODES for code in codes
    )


def _liver_segments(seg: Dataset) -> dict[int, Dataset]:
    """Segments that make up the liver, by number; empty unless one has the liver itself as its property type."""
    segments = {int(item.get("SegmentNumber", 0)): item for item in seg.get("SegmentSequence", ())}
    liver = {n for n, item in segments.items() if _is_liver(item.get("SegmentedPropertyTypeCodeSequence", ()))}
    if not liver:
        return {}
    inside = {n for n, item in segments.items() if _is_liver(item.get("AnatomicRegionSequence", ()))}
    return {n: segments[n] for n in sorted(liver | inside)}


def _algorithm(wanted: dict[int, Dataset]) -> str:
    names = sorted({str(item.get("SegmentAlgorithmName", "")) for item in wanted.values()} - {""})
    kinds = sorted({str(item.get("SegmentAlgorithmType", "")) for item in wanted.values()} - {""})
    return f"{'/'.join(names or kinds) or 'unnamed'} (received SEG)"


def _check_sources(uid: str, frames: list[Dataset], volume: CTVolume) -> None:
    """Refuse a SEG that names its source images and none of the stack's: a series may hold several stacks."""
    known = {source.sop_instance_uid for source in volume.sources}
    named = set().union(*(_source_uids(frame) for frame in frames))
    if known and named and not named & known:
        raise InputRejected(
            Reason.MIXED_GEOMETRY, f"SEG {uid}: it was made from other images than this stack's slices."
        )


def _group(seg: Dataset, frame: Dataset, sequence: str) -> Dataset | None:
    """Functional group of a frame, its own before the shared one (PS3.3 C.7.6.16.1)."""
    for holder in (frame, *seg.get("SharedFunctionalGroupsSequence", ())):
        items = holder.get(sequence)
        if items:
            group: Dataset = items[0]
            return group
    return None


def _segment_number(seg: Dataset, frame: Dataset) -> int:
    group = _group(seg, frame, "SegmentIdentificationSequence")
    return int(group.get("ReferencedSegmentNumber", 0)) if group is not None else 0


def _source_uids(frame: Dataset) -> set[str]:
    return {
        str(source.get("ReferencedSOPInstanceUID", ""))
        for derivation in frame.get("DerivationImageSequence", ())
        for source in derivation.get("SourceImageSequence", ())
    }


def _plane(seg: Dataset, frame: Dataset, uid: str) -> SegPlane:
    orientation = _group(seg, frame, "PlaneOrientationSequence")
    measures = _group(seg, frame, "PixelMeasuresSequence")
    if (
        orientation is None
        or measures is None
        or measures.get("PixelSpacing") is None
        or orientation.get("ImageOrientationPatient") is None
    ):
        raise InputRejected(Reason.MISSING_GEOMETRY, f"SEG {uid}: a frame has no orientation or pixel spacing.")
    cosines = np.asarray([float(v) for v in orientation.ImageOrientationPatient])
    between = measures.get("SpacingBetweenSlices")
    return SegPlane(
        row=cosines[:3],
        column=cosines[3:],
        normal=np.cross(cosines[:3], cosines[3:]),
        spacing=(float(measures.PixelSpacing[0]), float(measures.PixelSpacing[1])),
        between=abs(float(between)) if between else None,
    )


def _origin(seg: Dataset, frame: Dataset, volume: CTVolume, uid: str) -> FloatArray:
    """Where a frame begins: its own position, or that of the one slice it was made from."""
    position = _group(seg, frame, "PlanePositionSequence")
    if position is not None and position.get("ImagePositionPatient") is not None:
        return np.asarray([float(v) for v in position.ImagePositionPatient])
    sources = _source_uids(frame)
    slices = [k for k, source in enumerate(volume.sources) if source.sop_instance_uid in sources]
    if len(slices) == 1:
        return np.asarray(volume.geometry.positions[slices[0]], dtype=np.float64)
    raise InputRejected(Reason.MISSING_GEOMETRY, f"SEG {uid}: a frame has no position and names no single slice.")
