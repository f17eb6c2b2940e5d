"""``attention.pm.dcm``: where the model looked, as numbers (Parametric Map, PS3.3 A.75).

A frame is a key slice's own pixel grid, and a stored value is the share of the model's attention that one image token
there got, unscaled: read bilinearly between the tokens' centres, 0 where the model's view did not reach. It is built
around one slice by highdicom, as the SEG is; the frames are added here.
"""

from __future__ import annotations

from highdicom import VOILUTTransformation
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr import CodedConcept
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from m3node.drawing.cells import Float32Array, cells_on_pixels
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.results import terms
from m3node.results.attention.picture import title
from m3node.results.attention.references import refer_in_common, refer_to_reports
from m3node.results.dress import MANUFACTURER, Job, dress, plain
from m3node.results.findings import KeyAttention
from m3node.results.frames import frame_group, liver_anatomy
from m3node.results.objects import ObjectKind
from m3node.results.uids import derived_uid

_DERIVATION = CodedConcept.from_code(codes.DCM.UnspecifiedMethodOfCalculation)
_EXPLANATION = "Share of model attention per image token (0 to 1)"


def build_attention_map(job: Job) -> bytes:
    """Build the map: one frame for each `KeyAttention`, in their order."""
    shown = job.findings.attention
    peak = float(max(item.grid.values.max() for item in shown))
    window = VOILUTTransformation(
        window_center=peak / 2,
        # A window narrower than 1 exists only in this function (PS3.3 C.11.2.1.3.2).
        window_width=peak or 1.0,
        voi_lut_function="LINEAR_EXACT",
    )
    sop = ParametricMap(
        source_images=[job.source.slice_image(shown[0].slice_index)],
        pixel_array=_plane(shown[0], job.source.shape),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping()],
        voi_lut_transformations=[window],
        content_label="M3NODE",
        content_description=NOT_FOR_CLINICAL_USE,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=terms.OWN_SCHEME, name="m3node", responsible_organization=MANUFACTURER
            )
        ],
        **job.attributes(ObjectKind.ATTENTION_MAP),
    )
    _add_frames(sop, job)
    # Without a body part Laterality would be required (PS3.3 C.7.3.1, type 2C).
    sop.BodyPartExamined = "LIVER"
    refer_to_reports(sop, job)
    refer_in_common(sop, job)
    return dress(sop, job)


def _plane(item: KeyAttention, shape: tuple[int, int, int]) -> Float32Array:
    area = item.grid.area
    return cells_on_pixels(item.grid.values, (area.r0, area.c0, area.r1, area.c1), shape[1:])


def _mapping() -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label="ATTENTION",
        lut_explanation=_EXPLANATION,
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=terms.ATTENTION_SHARE,
    )


def _add_frames(sop: ParametricMap, job: Job) -> None:
    organization = derived_uid("dimension organization", "attention", job.digest)
    identification = Dataset()
    identification.DimensionOrganizationUID = organization
    sop.DimensionOrganizationSequence = [identification]
    # Two lesions may have the same key slice: position alone would not tell their frames apart.
    dimensions = [
        _dimension(organization, "ImagePositionPatient", "PlanePositionSequence", "Slice"),
        _dimension(organization, "FrameLabel", "FrameContentSequence", "Lesion"),
    ]
    sop[Tag("DimensionIndexSequence")] = DataElement(Tag("DimensionIndexSequence"), "SQ", dimensions)
    if "DimensionOrganizationType" in sop:
        del sop.DimensionOrganizationType
    # The one slice it was built around; each frame names its own.
    del sop.SourceImageSequence
    shared = sop.SharedFunctionalGroupsSequence[0]
    for keyword in ("PlanePositionSequence", "DerivationImageSequence", "FrameContentSequence"):
        if keyword in shared:
            delattr(shared, keyword)
    shared.FrameAnatomySequence = [liver_anatomy()]
    ranks = {k: rank for rank, k in enumerate(sorted({item.slice_index for item in job.findings.attention}), start=1)}
    # From 1 and without a gap (PS3.3 C.7.6.17.1): a lesion may have no attention.
    numbers = sorted({item.lesion or 0 for item in job.findings.attention})
    groups = [
        _group(job, item, [ranks[item.slice_index], numbers.index(item.lesion or 0) + 1])
        for item in job.findings.attention
    ]
    sop.PerFrameFunctionalGroupsSequence = groups
    sop.NumberOfFrames = len(groups)
    sop.FloatPixelData = b"".join(
        _plane(item, job.source.shape).astype("<f4").tobytes() for item in job.findings.attention
    )


def _dimension(organization: str, keyword: str, group: str, label: str) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer = Tag(keyword)
    item.FunctionalGroupPointer = Tag(group)
    item.DimensionOrganizationUID = organization
    item.DimensionDescriptionLabel = label
    return item


def _group(job: Job, shown: KeyAttention, index: list[int]) -> Dataset:
    group = frame_group(job.source.slices[shown.slice_index], _DERIVATION, index)
    (content,) = group.FrameContentSequence
    content.FrameLabel = f"Lesion {shown.lesion}" if shown.lesion is not None else "Largest liver"
    content.FrameComments = plain(title(shown, job.findings), 10240)
    return group
