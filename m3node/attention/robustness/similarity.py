"""How alike two grids are, one brought back into the other's cells: few numbers, over what both images show.

Resampling alone makes a difference: a grid of other cells comes back a little smoother. `Similarity.floor` says how
much, so that what the model does can be told from what the arithmetic does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass

from m3node.attention.metrics.divergence import jensen_shannon, pearson, spearman, top_overlap
from m3node.attention.robustness.perturbation import Affine
from m3node.attention.robustness.undoing import Frame, Undone, over_compared, undo


@dataclass(frozen=True, slots=True)
class Similarity:
    """Of two grids over the same cells, each adding up to 1 over the cells that are compared.

    Attributes
    ----------
    jensen_shannon : float
        Divergence, base 2: 0 for the same, 1 for grids that share no cell (Lin, 1991).
    floor : float
        The divergence that resampling alone makes: the original grid, brought into the changed image's cells and back.
        0 where nothing moved.
    pearson, spearman : float or None
        Correlation over the cells, of their values and of their ranks, −1…1. None where one grid is flat.
    top_overlap : float
        Intersection over union of the largest tenth of the cells of each, 0…1.
    cells : int
        How many cells are compared.
    left_out_before, left_out_after : float
        Share of the original's, and of the changed image's, attention that is not compared, 0…1.
    """

    jensen_shannon: float
    floor: float
    pearson: float | None
    spearman: float | None
    top_overlap: float
    cells: int
    left_out_before: float
    left_out_after: float


def similarity_of(original: npt.NDArray[np.floating], undone: Undone, floor: float = 0.0) -> Similarity | None:
    """Compare a grid with one in its cells; None when either has nothing in those that are compared."""
    before, left_out = over_compared(original, undone.compared)
    after, _ = over_compared(undone.grid, undone.compared)
    if not before.sum() > 0 or not after.sum() > 0:
        return None
    return Similarity(
        jensen_shannon=jensen_shannon(before, after),
        floor=floor,
        pearson=pearson(before, after),
        spearman=spearman(before, after),
        top_overlap=top_overlap(before, after),
        cells=len(before),
        left_out_before=left_out,
        left_out_after=undone.left_out,
    )


def resampling_floor(original: npt.NDArray[np.floating], frame: Frame, changed: Frame, to_original: Affine) -> float:
    """Return the divergence of a grid from itself after the way there and back, over what both images show."""
    turn = np.linalg.inv(to_original[:, :2])
    there = np.column_stack([turn, -turn @ to_original[:, 2]])
    moved = undo(original, frame, there, changed)
    back = undo(moved.grid, changed, to_original, frame)
    found = similarity_of(original, back)
    return 0.0 if found is None else found.jensen_shannon
