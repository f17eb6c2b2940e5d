"""The free-response curve: recall against false lesions per volume, as the bound on the score falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from m3node.evaluation.ablation.record import Record
from m3node.evaluation.matching import match

FROC_IOU = 0.1
"""3-D boxes that overlap at least so much are a hit: small lesions on thick slices overlap little."""


@dataclass(frozen=True, slots=True)
class FrocPoint:
    """A point of the curve: what is found at this score and above."""

    score: float
    recall: float
    false_per_volume: float


def froc(records: Sequence[Record], level: float = FROC_IOU) -> tuple[FrocPoint, ...]:
    """Compute the curve of one condition, from the highest score down; empty without a true lesion or a found one."""
    known = [record for record in records if record.truth is not None]
    lesions = sum(len(record.truth or ()) for record in known)
    scores = sorted({lesion.score for record in known for lesion in record.found}, reverse=True)
    if not lesions:
        return ()
    points = []
    for score in scores:
        hits = false = 0
        for record in known:
            kept = replace(record, found=tuple(lesion for lesion in record.found if lesion.score >= score))
            matching = match([f.extent for f in kept.found], [t.extent for t in kept.truth or ()], level)
            hits += len(matching.pairs)
            false += len(matching.false)
        points.append(FrocPoint(score=score, recall=hits / lesions, false_per_volume=false / len(known)))
    return tuple(points)
