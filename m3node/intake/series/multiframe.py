"""Frames of Enhanced and Legacy Converted Enhanced CT, from their functional groups (PS3.3 A.38, A.70)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from m3node.intake.series.elements import decimal, decimals, integer_string, item, items, text, texts, unsigned
from m3node.intake.series.header import FrameHeader

_SHARED = 0x52009229
_PER_FRAME = 0x52009230
_PLANE_POSITION = 0x00209113
_PLANE_ORIENTATION = 0x00209116
_PIXEL_MEASURES = 0x00289110
_PIXEL_VALUE_TRANSFORMATION = 0x00289145
_CT_FRAME_TYPE = 0x00189329
_CT_RECONSTRUCTION = 0x00189314
_FRAME_CONTENT = 0x00209111
_UNASSIGNED_SHARED = 0x00209170
_UNASSIGNED_PER_FRAME = 0x00209171


def multiframe_headers(
    ds: Dataset, image_type: tuple[str, ...], *, little_endian: bool = True
) -> tuple[FrameHeader, ...]:
    """Read every frame that the functional groups describe.

    A frame's own functional group wins over the shared one (PS3.3 C.7.6.16.1.1). Legacy Converted objects keep what
    has no place of its own among the unassigned attributes (PS3.3 C.7.6.16.2.25.1).

    Parameters
    ----------
    ds : Dataset
        The data set before its pixel data.
    image_type : tuple of str
        Of the instance; stands in for an absent Frame Type.
    little_endian : bool
        Byte order of the data set.

    Returns
    -------
    tuple of FrameHeader
        At least one, so that an object without functional groups is judged and not lost.
    """
    shared = item(ds, _SHARED) or Dataset()
    groups = items(ds, _PER_FRAME) or (Dataset(),)
    return tuple(
        _frame(number, group, shared, image_type, little_endian) for number, group in enumerate(groups, start=1)
    )


def _frame(number: int, own: Dataset, shared: Dataset, image_type: tuple[str, ...], little_endian: bool) -> FrameHeader:
    def macro(tag: int) -> Dataset:
        return item(own, tag) or item(shared, tag) or Dataset()

    position = decimals(macro(_PLANE_POSITION), 0x00200032, 3)
    orientation = decimals(macro(_PLANE_ORIENTATION), 0x00200037, 6)
    measures = macro(_PIXEL_MEASURES)
    spacing = decimals(measures, 0x00280030, 2)
    rescale = macro(_PIXEL_VALUE_TRANSFORMATION)
    content = macro(_FRAME_CONTENT)
    unassigned = (macro(_UNASSIGNED_PER_FRAME), macro(_UNASSIGNED_SHARED))
    kernel = text(macro(_CT_RECONSTRUCTION), 0x00181210) or next(
        (value for group in unassigned if (value := text(group, 0x00181210))), ""
    )
    acquisition = unsigned(content, 0x00209156, little_endian=little_endian)
    legacy = next((found for group in unassigned if (found := integer_string(group, 0x00200012)) is not None), None)
    return FrameHeader(
        number=number,
        position=(position[0], position[1], position[2]) if position else None,
        orientation=(orientation[0], orientation[1], orientation[2], orientation[3], orientation[4], orientation[5])
        if orientation
        else None,
        pixel_spacing=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness=decimal(measures, 0x00180050),
        rescale_slope=decimal(rescale, 0x00281053),
        rescale_intercept=decimal(rescale, 0x00281052),
        acquisition_number=acquisition if acquisition is not None else legacy,
        temporal_position=unsigned(content, 0x00209128, little_endian=little_endian),
        kernel=kernel,
        image_type=texts(macro(_CT_FRAME_TYPE), 0x00089007) or image_type,
    )
