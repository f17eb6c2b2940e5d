"""Which of the attention that a detector kept is shown: one map for each lesion, or one where nothing was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from m3node.detectors.protocols import SliceAttention
from m3node.liver.region import LiverRegion
from m3node.m3.lesion import Lesion
from m3node.m3.nms import iou
from m3node.results.findings import KeyAttention

MAX_LESIONS = 50
"""A frame of each takes 1.7 MB in the capture and 1 MB in the map, and several times that while they are built."""


def choose_attention(
    kept: Sequence[SliceAttention], lesions: Sequence[Lesion], region: LiverRegion | None
) -> tuple[KeyAttention, ...]:
    """Choose what the capture and the Parametric Map show.

    For each lesion, on its key slice, the attention of the box that overlaps the lesion's most (intersection over
    union; of equals, that of the smallest padding); where no box does, the whole answer to the view of the smallest
    padding. Without a lesion, the whole answer on the slice where the liver is largest among those with one.

    Parameters
    ----------
    kept : sequence of SliceAttention
        What the detector tells.
    lesions : sequence of Lesion
        As reported.
    region : LiverRegion or None
        The liver.

    Returns
    -------
    tuple of KeyAttention
        By slice, then by lesion; of the best ``MAX_LESIONS`` lesions at most. A lesion whose key slice has no
        attention has none.
    """
    if not lesions:
        return _of_largest(kept, region)
    best = sorted(lesions, key=lambda lesion: lesion.number)[:MAX_LESIONS]
    chosen = (_of_lesion([item for item in kept if item.slice_index == lesion.key_slice], lesion) for lesion in best)
    shown = [item for item in chosen if item is not None]
    return tuple(sorted(shown, key=lambda item: (item.slice_index, item.lesion or 0)))


def largest_slice(region: LiverRegion, among: Iterable[int] | None = None) -> int | None:
    """The slice where the liver is largest, of all or of some; None where there is no liver on any."""
    parenchyma = region.parenchyma
    areas = parenchyma.data.sum(axis=(1, 2))
    slices = range(parenchyma.start[0], parenchyma.start[0] + len(areas))
    wanted = None if among is None else set(among)
    sizes = {k: int(area) for k, area in zip(slices, areas, strict=True) if wanted is None or k in wanted}
    best = max(sizes, key=lambda k: sizes[k], default=None)
    return best if best is not None and sizes[best] else None


def _of_lesion(kept: Sequence[SliceAttention], lesion: Lesion) -> KeyAttention | None:
    boxed = [(item, iou(item.box, lesion.key_box.box)) for item in kept if item.box is not None]
    near = [(item, overlap) for item, overlap in boxed if overlap > 0.0]
    if near:
        best, _ = max(near, key=lambda pair: (pair[1], -pair[0].padding))
        return _key(best, lesion.number)
    whole = _whole(kept)
    return None if whole is None else _key(whole, lesion.number)


def _of_largest(kept: Sequence[SliceAttention], region: LiverRegion | None) -> tuple[KeyAttention, ...]:
    if region is None:
        return ()
    k = largest_slice(region, {item.slice_index for item in kept if item.box is None})
    whole = _whole([item for item in kept if item.slice_index == k])
    return () if whole is None else (_key(whole, None),)


def _whole(kept: Sequence[SliceAttention]) -> SliceAttention | None:
    return min((item for item in kept if item.box is None), key=lambda item: item.padding, default=None)


def _key(item: SliceAttention, lesion: int | None) -> KeyAttention:
    return KeyAttention(slice_index=item.slice_index, grid=item.grid, box=item.box, lesion=lesion, padding=item.padding)
