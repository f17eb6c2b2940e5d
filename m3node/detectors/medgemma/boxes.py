"""From the boxes of an answer to boxes of its view, with a score each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from m3node.detectors.medgemma.answer import UnitBox
from m3node.detectors.medgemma.labels import Named
from m3node.detectors.protocols import Box2D
from m3node.gemma.images import SquareFrame
from m3node.gemma.spans import Span, tokens_in

SIDES = (20, 600)
"""Shortest and longest side of a box in units of 0…1000 of the square, as published: smaller ones are slips of a digit,
larger ones the liver itself."""


def is_plausible(box: UnitBox) -> bool:
    """Tell whether a box is ordered, and has sides within `SIDES`."""
    return all(SIDES[0] <= last - first <= SIDES[1] for first, last in ((box.y0, box.y1), (box.x0, box.x1)))


def lesion_box(box: UnitBox, frame: SquareFrame) -> Box2D | None:
    """Bring a box to its view; None when it can be no lesion's: implausible, in the padding, another structure's."""
    return on_view(box, frame) if box.named is Named.LESION and is_plausible(box) else None


def on_view(box: UnitBox, frame: SquareFrame) -> Box2D | None:
    """Bring a box to the rows and columns of its crop, cut off at its border; None when it lies in the padding."""
    r0, c0, r1, c1 = frame.from_units(box.y0, box.x0, box.y1, box.x1)
    cut = Box2D(r0=max(r0, 0.0), c0=max(c0, 0.0), r1=min(r1, frame.rows), c1=min(c1, frame.columns))
    return cut if cut.r1 > cut.r0 and cut.c1 > cut.c0 else None


def coordinate_tokens(box: UnitBox, spans: Sequence[Span]) -> tuple[int, ...]:
    """Return the answer's tokens that wrote the box's four numbers, rising."""
    return tuple(sorted({token for span in box.spans for token in tokens_in(spans, span)}))


def score_of(tokens: Sequence[int], log_probs: Sequence[float]) -> float:
    """Score a box by the probabilities of its coordinate tokens: their geometric mean, 0…1.

    Not their product, which would rank a box at single-digit coordinates over an equally sure one at three digits each,
    only for having fewer tokens.
    """
    return math.exp(sum(log_probs[token] for token in tokens) / len(tokens)) if tokens else 0.0
