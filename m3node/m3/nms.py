"""Multi-scale non-maximum suppression: the boxes of a slice's views become one box a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m3node.detectors.protocols import Box2D, SliceBox
from m3node.m3.projection import Frame, PlaneMask, ProjectedBox

_ELIGIBLE_SHARE = 0.5
"""A view could have seen a box when its crop holds at least this much of it."""


@dataclass(frozen=True, slots=True, eq=False)
class FusedBox:
    """A slice's box after suppression, with the voxels of the view's box that stands for it."""

    box: SliceBox
    mask: PlaneMask | None

    @property
    def slice_index(self) -> int:
        """Slice it lies on."""
        return self.box.slice_index


def area(box: Box2D) -> float:
    """Area in voxels; 0 for a box turned inside out."""
    return max(0.0, box.r1 - box.r0) * max(0.0, box.c1 - box.c0)


def intersection(a: Box2D, b: Box2D) -> float:
    """Common area of two boxes in voxels."""
    return area(Box2D(max(a.r0, b.r0), max(a.c0, b.c0), min(a.r1, b.r1), min(a.c1, b.c1)))


def iou(a: Box2D, b: Box2D) -> float:
    """Intersection over union of two boxes, 0…1."""
    common = intersection(a, b)
    union = area(a) + area(b) - common
    return common / union if union > 0 else 0.0


def fuse(boxes: Sequence[ProjectedBox], frames: Sequence[Frame], nms_iou: float) -> tuple[FusedBox, ...]:
    """Fuse one slice's boxes.

    Parameters
    ----------
    boxes : sequence of ProjectedBox
        All of one slice, from all its views.
    frames : sequence of Frame
        The slice's views whose answers could be read, also those that saw nothing.
    nms_iou : float
        Boxes that overlap at least so much are the same finding.

    Returns
    -------
    tuple of FusedBox
        Best first. Votes (views with a box that overlaps) are counted, and scores fused, *before* suppression:
        the fused score is the sum of the best overlapping score of each view, over the number of views whose crop
        holds the box. A view that could have seen it and did not thus lowers the score.
    """
    fused: list[tuple[float, int, ProjectedBox, SliceBox]] = []
    for order, candidate in enumerate(boxes):
        best: dict[int, float] = {}
        for other in boxes:
            if other is candidate or iou(candidate.box, other.box) >= nms_iou:
                best[other.view] = max(best.get(other.view, other.score), other.score)
        needed = _ELIGIBLE_SHARE * area(candidate.box)
        eligible = {frame.number for frame in frames if intersection(frame.box, candidate.box) >= needed} | set(best)
        score = sum(best.values()) / len(eligible)
        summary = SliceBox(
            slice_index=candidate.slice_index, box=candidate.box, score=score, votes=len(best), views=len(eligible)
        )
        fused.append((-score, order, candidate, summary))
    kept: list[FusedBox] = []
    # At equal scores the better single box stands for the finding, then the one seen first.
    for _, _, candidate, summary in sorted(fused, key=lambda item: (item[0], -item[2].score, item[1])):
        if all(iou(summary.box, other.box.box) < nms_iou for other in kept):
            kept.append(FusedBox(box=summary, mask=candidate.mask))
    return tuple(kept)
