"""Which found lesion is which true one: boxes overlapped, assigned one to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """A found lesion that is a true one, by index into what was given, and their box IoU."""

    found: int
    truth: int
    iou: float


@dataclass(frozen=True, slots=True)
class Matching:
    """What came of a comparison.

    Attributes
    ----------
    pairs : tuple of Pair
        By true lesion.
    missed : tuple of int
        True lesions that nothing found.
    false : tuple of int
        Found lesions that are not there.
    """

    pairs: tuple[Pair, ...]
    missed: tuple[int, ...]
    false: tuple[int, ...]

    @property
    def recall(self) -> float:
        """Share of the true lesions that were found; 1 when there is none."""
        total = len(self.pairs) + len(self.missed)
        return len(self.pairs) / total if total else 1.0


def box_iou(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Intersection over union of two boxes of half-open intervals, in any number of axes.

    Examples
    --------
    >>> box_iou([(0, 2), (0, 2)], [(1, 3), (0, 2)])
    0.3333333333333333
    """
    common, volume_a, volume_b = 1.0, 1.0, 1.0
    for (a0, a1), (b0, b1) in zip(a, b, strict=True):
        common *= max(0.0, min(a1, b1) - max(a0, b0))
        volume_a *= max(0.0, a1 - a0)
        volume_b *= max(0.0, b1 - b0)
    union = volume_a + volume_b - common
    return common / union if union > 0 else 0.0


def match(found: Sequence[Sequence[Interval]], truth: Sequence[Sequence[Interval]], iou: float) -> Matching:
    """Pair found with true lesions by their boxes.

    Parameters
    ----------
    found, truth : sequence of boxes
        Half-open voxel bounds, on one grid: three axes of a volume, or two of a slice.
    iou : float
        Boxes that overlap less are no pair.

    Returns
    -------
    Matching
        As many pairs as can be had; among those the ones that overlap most.
    """
    overlaps = np.array([[box_iou(f, t) for t in truth] for f in found], dtype=float).reshape(len(found), len(truth))
    # A pair above the bound is worth more than any gain in overlap elsewhere.
    worth = np.where(overlaps >= iou, 1.0 + overlaps / (1.0 + min(len(found), len(truth))), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    pairs = [
        Pair(found=int(f), truth=int(t), iou=float(overlaps[f, t]))
        for f, t in zip(rows, columns, strict=True)
        if overlaps[f, t] >= iou and overlaps[f, t] > 0
    ]
    pairs.sort(key=lambda pair: pair.truth)
    hit, used = {pair.truth for pair in pairs}, {pair.found for pair in pairs}
    return Matching(
        pairs=tuple(pairs),
        missed=tuple(t for t in range(len(truth)) if t not in hit),
        false=tuple(f for f in range(len(found)) if f not in used),
    )
