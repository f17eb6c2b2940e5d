"""Boxes linked over slices into 3-D findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from m3node.detectors.protocols import Box2D
from m3node.m3.nms import FusedBox, area, intersection, iou

MIN_AFFINITY = 0.1
"""Boxes of one lesion on neighbouring slices have at least so much `affinity`."""

_NESTED = 0.25
"""Near a lesion's pole the box shrinks fast: a box that lies within its neighbour counts as overlapping so much."""

MIN_EXTENSION_IOU = 0.25
"""A weaker box needs more overlap to be taken for a lesion's continuation."""

NEXT_MM = 3.0
"""Slices so near to a finding's ends are next to it; at least one always is."""

Chain = tuple[FusedBox, ...]
"""The boxes of one finding, by slice, at most one a slice."""

BySlice = Mapping[int, Sequence[FusedBox]]


def affinity(a: Box2D, b: Box2D) -> float:
    """How much two boxes on neighbouring slices look like one lesion: overlap, or lying within each other, 0…1."""
    smaller = min(area(a), area(b))
    within = intersection(a, b) / smaller if smaller > 0 else 0.0
    return max(iou(a, b), _NESTED * within)


def gap_slices(gap_mm: float, slice_mm: float) -> int:
    """Number of slices without a box that a lesion may bridge."""
    return math.floor(gap_mm / slice_mm + 1e-6)


def link(boxes: BySlice, *, slice_mm: float, gap_mm: float) -> list[Chain]:
    """Link boxes over slices.

    Parameters
    ----------
    boxes : mapping of int to sequence of FusedBox
        Boxes by slice.
    slice_mm : float
        Distance between slices.
    gap_mm : float
        Thickness without a box that a finding may bridge.

    Returns
    -------
    list of Chain
        Every box is in one chain. On each slice, boxes and open chains are assigned one to one so that the sum of
        their overlaps is largest.
    """
    reach = gap_slices(gap_mm, slice_mm) + 1
    closed: list[list[FusedBox]] = []
    open_: list[list[FusedBox]] = []
    for k in sorted(boxes):
        still_open = [chain for chain in open_ if k - chain[-1].slice_index <= reach]
        closed += [chain for chain in open_ if k - chain[-1].slice_index > reach]
        here = list(boxes[k])
        taken: set[int] = set()
        if still_open and here:
            overlap = np.array([[affinity(chain[-1].box.box, box.box.box) for box in here] for chain in still_open])
            rows, columns = linear_sum_assignment(np.where(overlap >= MIN_AFFINITY, overlap, 0.0), maximize=True)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                if overlap[row, column] >= MIN_AFFINITY:
                    still_open[row].append(here[column])
                    taken.add(column)
        open_ = still_open + [[box] for index, box in enumerate(here) if index not in taken]
    return [tuple(chain) for chain in closed + open_]


def open_slices(chain: Chain, *, slice_mm: float, slices: Sequence[int]) -> list[tuple[int, Box2D]]:
    """Where to look again: a chain's gaps and the slices next to its ends, each with the box to expect there.

    Parameters
    ----------
    slices : sequence of int
        Slices that may be looked at.
    """
    known = {fused.slice_index for fused in chain}
    beyond = max(1, math.floor(NEXT_MM / slice_mm + 1e-6))
    first, last = min(known) - beyond, max(known) + beyond
    return [(k, expected_box(chain, k)) for k in slices if first <= k <= last and k not in known]


def expected_box(chain: Chain, k: int) -> Box2D:
    """Interpolate a chain's box on slice ``k``; beyond its ends the end's box."""
    indices = [fused.slice_index for fused in chain]
    sides = [
        float(np.interp(k, indices, [getattr(fused.box.box, side) for fused in chain]))
        for side in ("r0", "c0", "r1", "c1")
    ]
    return Box2D(sides[0], sides[1], sides[2], sides[3])


def extend(chains: Sequence[Chain], weak: BySlice, *, slice_mm: float, gap_mm: float) -> list[Chain]:
    """Let chains take weaker boxes next to them and in their gaps.

    A chain grows outwards while there is a box within the gap that overlaps the expected one by `MIN_EXTENSION_IOU`.
    A box is taken once; stronger chains choose first.
    """
    reach = gap_slices(gap_mm, slice_mm) + 1
    taken: set[int] = set()
    grown: list[Chain] = []
    for chain in sorted(chains, key=lambda links: -chain_score(links)):
        current = chain
        while (found := _next_weak(current, weak, reach, taken)) is not None:
            taken.add(id(found))
            current = tuple(sorted((*current, found), key=lambda fused: fused.slice_index))
        grown.append(current)
    return grown


def chain_score(chain: Chain) -> float:
    """Score of a finding: its best slice's fused score."""
    return max(fused.box.score for fused in chain)


def _next_weak(chain: Chain, weak: BySlice, reach: int, taken: set[int]) -> FusedBox | None:
    known = {fused.slice_index for fused in chain}
    first, last = min(known), max(known)
    near = sorted(range(first - reach, last + reach + 1), key=lambda k: min(abs(k - first), abs(k - last)))
    for k in near:
        if k in known:
            continue
        expected = expected_box(chain, k)
        best = max(
            (box for box in weak.get(k, ()) if id(box) not in taken),
            key=lambda box: iou(box.box.box, expected),
            default=None,
        )
        if best is not None and iou(best.box.box, expected) >= MIN_EXTENSION_IOU:
            return best
    return None
