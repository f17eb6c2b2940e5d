"""``segmentation.seg.dcm``: the liver and each lesion as a BINARY Segmentation (PS3.3 A.51; decision 13 of the design).

highdicom builds the object around one empty slice; frames are added here, one for each slice of each segment that
is not empty, straight from the masks' blocks. Its own way takes an array of slices × rows × columns × segments, 0.3 GB
for an ordinary liver, and every slice's header.

A voxel of a lesion is not liver tissue: segment 1 is the parenchyma without the lesions. Overlapping segments are
legal, but OHIF's reader (Cornerstone adapters) then loses slices of a lesion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription, SegmentsOverlapValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from m3node.errors import ResultError
from m3node.imaging.mask import VoxelMask
from m3node.m3.lesion import Lesion, MaskOrigin
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results import terms
from m3node.results.dress import MANUFACTURER, Job, dress, plain
from m3node.results.frames import frame_group, liver_anatomy
from m3node.results.objects import ObjectKind
from m3node.results.uids import derived_uid, dimension_organization_uid

LIVER_COLOUR = (221, 130, 101)
LESION_COLOURS = ((255, 214, 0), (0, 200, 255), (255, 64, 160), (120, 255, 90), (190, 120, 255), (255, 140, 0))

_DERIVATION = hd.sr.CodedConcept.from_code(codes.cid7203.SegmentationImageDerivation)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    segment: int
    k: int
    plane: npt.NDArray[np.bool_]


def lesion_segment(lesion: Lesion) -> int:
    """Segment Number of a lesion: the liver is segment 1."""
    return lesion.number + 1


def tracking_identifier(lesion: Lesion) -> str:
    """Tracking Identifier of a lesion, the same in SEG, SRs and presentation state."""
    return f"Lesion {lesion.number}"


def lesion_colour(number: int) -> tuple[int, int, int]:
    """Display colour of lesion ``number``, red, green and blue."""
    return LESION_COLOURS[(number - 1) % len(LESION_COLOURS)]


def has_segmentation(job: Job) -> bool:
    """Whether there is a voxel to show: without a liver there is no SEG."""
    region = job.findings.region
    return region is not None and (region.parenchyma.count > 0 or bool(job.findings.lesions))


def build_segmentation(job: Job) -> bytes:
    """Build the SEG.

    Raises
    ------
    ResultError
        There is no liver, or a mask does not fit the series.
    """
    region = job.findings.region
    if region is None or not has_segmentation(job):
        raise ResultError("without a liver there is nothing to segment")
    lesions = {lesion_segment(lesion): lesion.mask for lesion in job.findings.lesions}
    for mask in (region.parenchyma, *lesions.values()):
        if mask.shape != job.source.shape:
            raise ResultError(
                f"a mask has {mask.shape} voxels and series {job.source.series_instance_uid} has {job.source.shape}: "
                "the findings are not of this series"
            )
    masks = {1: without(region.parenchyma, lesions.values()), **lesions}
    descriptions = [_liver_description(job)]
    descriptions += [
        _lesion_description(job, lesion, uid)
        for lesion, uid in zip(job.findings.lesions, job.findings.tracking_uids, strict=True)
    ]
    sop = _around_one_slice(job, descriptions)
    _add_references(sop, job)
    _add_frames(sop, job, masks)
    return dress(sop, job)


def without(mask: VoxelMask, others: Iterable[VoxelMask]) -> VoxelMask:
    """A mask less the voxels of others."""
    block = mask.cropped()
    extent = block.extent
    if extent is None:
        return block
    for other in others:
        block.data[...] &= ~other.within(extent)  # a copy already
    return block.cropped()


def _around_one_slice(job: Job, descriptions: list[SegmentDescription]) -> Segmentation:
    _, rows, columns = job.source.shape
    return Segmentation(
        source_images=[job.source.slice_image(0)],
        pixel_array=np.zeros((1, rows, columns, len(descriptions)), dtype=np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        omit_empty_frames=False,
        content_label="M3NODE",
        content_description=NOT_FOR_CLINICAL_USE,
        **job.attributes(ObjectKind.SEGMENTATION),
    )


def _add_references(sop: Segmentation, job: Job) -> None:
    references = []
    for sop_class_uid, sop_instance_uid in job.source.instances:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        references.append(item)
    series = Dataset()
    series.SeriesInstanceUID = job.source.series_instance_uid
    series.ReferencedInstanceSequence = references
    sop.ReferencedSeriesSequence = [series]
    # Each frame names its own sources; a list of the whole series beside them would only be longer.
    del sop.SourceImageSequence


def _add_frames(sop: Segmentation, job: Job, masks: dict[int, VoxelMask]) -> None:
    shared = sop.SharedFunctionalGroupsSequence[0]
    shared.FrameAnatomySequence = [liver_anatomy()]
    # With a single segment highdicom shares its number; here it always belongs to the frame.
    if "SegmentIdentificationSequence" in shared:
        del shared.SegmentIdentificationSequence
    organization = dimension_organization_uid(job.digest)
    sop.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for item in sop.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization
    if "DimensionOrganizationType" in sop:
        del sop.DimensionOrganizationType

    shown = sorted({k for mask in masks.values() for k in _slices(mask)})
    rank = {k: index for index, k in enumerate(shown, start=1)}
    groups: list[Dataset] = []
    packer = _BitPacker()
    for frame in _frames(masks):
        groups.append(_frame_group(job, frame, rank[frame.k]))
        packer.add(frame.plane)
    sop.PerFrameFunctionalGroupsSequence = groups
    sop.NumberOfFrames = len(groups)
    sop.PixelData = packer.finish()
    overlap = any(_overlap(one, other) for one, other in combinations(masks.values(), 2))
    sop.SegmentsOverlap = (SegmentsOverlapValues.YES if overlap else SegmentsOverlapValues.NO).value


def _overlap(one: VoxelMask, other: VoxelMask) -> bool:
    smaller, larger = sorted((one.cropped(), other.cropped()), key=lambda mask: mask.data.size)
    extent = smaller.extent
    return extent is not None and bool((larger.within(extent) & smaller.data).any())


def _slices(mask: VoxelMask) -> list[int]:
    return [mask.start[0] + int(k) for k in np.flatnonzero(mask.data.any(axis=(1, 2)))]


def _frames(masks: dict[int, VoxelMask]) -> Iterator[_Frame]:
    for segment, mask in masks.items():
        for k in _slices(mask):
            yield _Frame(segment=segment, k=k, plane=mask.on_slice(k))


class _BitPacker:
    """Packs frames bit by bit without a gap between them, first pixel in the lowest bit (PS3.5 8.1.1)."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._rest: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def add(self, plane: npt.NDArray[np.bool_]) -> None:
        bits = np.concatenate([self._rest, plane.ravel()])
        whole = bits.size - bits.size % 8
        self._chunks.append(np.packbits(bits[:whole], bitorder="little").tobytes())
        self._rest = bits[whole:]

    def finish(self) -> bytes:
        packed = b"".join([*self._chunks, np.packbits(self._rest, bitorder="little").tobytes()])
        return packed + b"\0" * (len(packed) % 2)


def _frame_group(job: Job, frame: _Frame, rank: int) -> Dataset:
    group = frame_group(job.source.slices[frame.k], _DERIVATION, [frame.segment, rank])
    segment = Dataset()
    segment.ReferencedSegmentNumber = frame.segment
    group.SegmentIdentificationSequence = [segment]
    return group


def _liver_description(job: Job) -> SegmentDescription:
    region = job.findings.region
    if region is None:
        raise ResultError("without a liver there is nothing to segment")
    description = SegmentDescription(
        segment_number=1,
        segment_label="Liver",
        segmented_property_category=terms.ORGAN,
        segmented_property_type=terms.LIVER,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=plain(region.algorithm or region.source.value, 64),
            family=codes.cid7162.MorphologicalOperations,
            version=plain(job.findings.software_version, 64),
            source=MANUFACTURER,
        ),
        tracking_id="Liver",
        tracking_uid=derived_uid("tracking", "liver", job.digest),
        anatomic_regions=[terms.LIVER],
        display_color=hd.color.CIELabColor.from_rgb(*LIVER_COLOUR),
    )
    came = f"taken from SEG {region.reference}" if region.reference else region.source.value
    words = f"Liver tissue ({came}); lesions are segments of their own. {NOT_FOR_CLINICAL_USE}"
    description.SegmentDescription = plain(words, 1024)
    return description


def _lesion_description(job: Job, lesion: Lesion, tracking_uid: str) -> SegmentDescription:
    detector = job.findings.detector
    description = SegmentDescription(
        segment_number=lesion_segment(lesion),
        segment_label=tracking_identifier(lesion),
        segmented_property_category=terms.ABNORMAL_STRUCTURE,
        segmented_property_type=terms.LESION,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=plain(detector.name, 64),
            family=terms.algorithm_family(detector),
            version=plain(detector.version, 64),
            source=MANUFACTURER,
            parameters={plain(name, 64): plain(value, 256) for name, value in detector.parameters} or None,
        ),
        tracking_id=tracking_identifier(lesion),
        tracking_uid=tracking_uid,
        anatomic_regions=[terms.LIVER],
        display_color=hd.color.CIELabColor.from_rgb(*lesion_colour(lesion.number)),
    )
    description.SegmentDescription = plain(f"{mask_words(lesion)}. {NOT_FOR_CLINICAL_USE}", 1024)
    return description


def mask_words(lesion: Lesion) -> str:
    """How a lesion's voxels were decided, in words."""
    return {
        MaskOrigin.DETECTOR: "Voxels given by the detector",
        MaskOrigin.HU_SPLIT: "Voxels estimated from boxes (two-class HU split inside them)",
        MaskOrigin.ELLIPSOID: "Voxels estimated from boxes (ellipsoid inscribed in them)",
    }[lesion.mask_origin]
