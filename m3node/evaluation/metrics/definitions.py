"""The metrics, each as what a case adds to a ratio of sums; docs/evaluation.md says them in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from m3node.evaluation.ablation.record import Box, FoundBox, Record
from m3node.evaluation.matching import Interval, box_iou, match

Term = tuple[float, float]
"""What a case adds to a metric's numerator and denominator."""

IOU_LEVELS = (0.1, 0.3, 0.5)
HALLUCINATED_BELOW = 0.01
"""A box that overlaps the union box less than this shows nothing of it (the published definition)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes
    ----------
    key, title : str
        Short name in files, and heading in tables.
    group : str
        ``published``, ``lesion``, ``slice`` or ``reading``.
    needs_volume : bool
        Has no meaning on one slice.
    adds : callable
        What a record with truth adds; `term` is what is to be asked.
    """

    key: str
    title: str
    group: str
    needs_volume: bool
    adds: Callable[[Record], Term]

    def term(self, record: Record) -> Term:
        """What a record adds: nothing where the truth is not known, whatever is measured."""
        return (0.0, 0.0) if record.truth is None else self.adds(record)


def _intervals(box: Box) -> tuple[Interval, Interval]:
    return (box[0], box[2]), (box[1], box[3])


def union_boxes(record: Record) -> dict[int, Box]:
    """Smallest box around all true lesions, for each slice that has any."""
    found: dict[int, Box] = {}
    for lesion in record.truth or ():
        for k, box in lesion.boxes:
            other = found.get(k, box)
            found[k] = (min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3]))
    return found


def _on_slices(boxes: Sequence[FoundBox]) -> dict[int, list[FoundBox]]:
    by_slice: dict[int, list[FoundBox]] = {}
    for box in boxes:
        by_slice.setdefault(box.k, []).append(box)
    return by_slice


def _best_iou_2d(record: Record) -> Term:
    """Slices without a box count as 0, also those that were never shown."""
    found, truth = _on_slices(record.boxes), union_boxes(record)
    best = [
        max((box_iou(_intervals(b.box), _intervals(union)) for b in found.get(k, ())), default=0.0)
        for k, union in truth.items()
    ]
    return sum(best), len(best)


def _hallucination_2d(record: Record) -> Term:
    truth = union_boxes(record)
    astray = [
        b.k not in truth or box_iou(_intervals(b.box), _intervals(truth[b.k])) < HALLUCINATED_BELOW
        for b in record.boxes
    ]
    return sum(astray), len(astray)


def _silent_2d(record: Record) -> Term:
    found, truth = _on_slices(record.boxes), union_boxes(record)
    return sum(k not in found for k in truth), len(truth)


def _best_iou_3d(record: Record) -> Term:
    """Each lesion's own box: the one around all lesions of a volume would span the liver."""
    best = [max((box_iou(f.extent, t.extent) for f in record.found), default=0.0) for t in record.truth or ()]
    return sum(best), len(best)


def _hallucination_3d(record: Record) -> Term:
    truth = record.truth or ()
    astray = [all(box_iou(f.extent, t.extent) < HALLUCINATED_BELOW for t in truth) for f in record.found]
    return sum(astray), len(astray)


def _hits_3d(record: Record, level: float) -> tuple[int, int, int]:
    """Pairs, found and true lesions."""
    truth = record.truth or ()
    matching = match([f.extent for f in record.found], [t.extent for t in truth], level)
    return len(matching.pairs), len(record.found), len(truth)


def _hits_2d(record: Record, level: float) -> tuple[int, int, int]:
    """Do as `_hits_3d` for boxes, slice by slice."""
    found = _on_slices(record.boxes)
    truth: dict[int, list[Box]] = {}
    for lesion in record.truth or ():
        for k, box in lesion.boxes:
            truth.setdefault(k, []).append(box)
    pairs = sum(
        len(match([_intervals(b.box) for b in found.get(k, ())], [_intervals(box) for box in boxes], level).pairs)
        for k, boxes in truth.items()
    )
    return pairs, len(record.boxes), sum(len(boxes) for boxes in truth.values())


def _recall(record: Record, *, level: float, hits: Callable[[Record, float], tuple[int, int, int]]) -> Term:
    pairs, _, known = hits(record, level)
    return pairs, known


def _precision(record: Record, *, level: float, hits: Callable[[Record, float], tuple[int, int, int]]) -> Term:
    pairs, found, _ = hits(record, level)
    return pairs, found


def _false_lesions(record: Record) -> Term:
    return (0.0, 0.0) if record.truth else (len(record.found), 1.0)


def _false_boxes(record: Record) -> Term:
    return (0.0, 0.0) if record.truth else (len(record.boxes), 1.0)


def _dice(record: Record) -> Term:
    return (record.dice, 1.0) if record.dice is not None else (0.0, 0.0)


def _liver_dice(record: Record) -> Term:
    return (record.liver_dice, 1.0) if record.liver_dice is not None else (0.0, 0.0)


METRICS: tuple[Metric, ...] = (
    Metric("best_iou_2d", "best IoU, slice", "published", False, _best_iou_2d),
    Metric("hallucination_2d", "hallucination, slice", "published", False, _hallucination_2d),
    Metric("silent_2d", "lesion slices without a box", "published", False, _silent_2d),
    Metric("best_iou_3d", "best IoU, volume", "published", True, _best_iou_3d),
    Metric("hallucination_3d", "hallucination, volume", "published", True, _hallucination_3d),
    *(
        Metric(f"recall_3d_{level}", f"recall at {level}", "lesion", True, partial(_recall, level=level, hits=_hits_3d))
        for level in IOU_LEVELS
    ),
    *(
        Metric(
            f"precision_3d_{level}",
            f"precision at {level}",
            "lesion",
            True,
            partial(_precision, level=level, hits=_hits_3d),
        )
        for level in IOU_LEVELS
    ),
    Metric("false_lesions", "false lesions per healthy volume", "lesion", True, _false_lesions),
    Metric("false_boxes", "false boxes per healthy volume", "lesion", True, _false_boxes),
    Metric("dice_3d", "3-D Dice", "lesion", True, _dice),
    *(
        Metric(
            f"recall_2d_{level}",
            f"recall at {level}, slice",
            "slice",
            False,
            partial(_recall, level=level, hits=_hits_2d),
        )
        for level in IOU_LEVELS
    ),
    *(
        Metric(
            f"precision_2d_{level}",
            f"precision at {level}, slice",
            "slice",
            False,
            partial(_precision, level=level, hits=_hits_2d),
        )
        for level in IOU_LEVELS
    ),
    Metric("unread", "views unread", "reading", False, lambda r: (r.views_total - r.views_read, r.views_total)),
    Metric("liver_dice", "liver Dice", "reading", True, _liver_dice),
    Metric("seconds", "seconds per case", "reading", False, lambda r: (r.seconds, 1.0)),
)
"""In the order of the table. A ratio whose denominator is 0 has no value."""
