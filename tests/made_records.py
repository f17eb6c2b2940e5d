"""Records of an evaluation, made by hand: boxes of ten voxels a side, so that every figure can be reckoned."""

from __future__ import annotations

from m3node.evaluation.ablation.record import FoundBox, FoundLesion, KnownLesion, Record
from m3node.imaging.mask import Extent

SIDE = 10


def cube(at: int, k: int = 0) -> Extent:
    """Ten rows and columns from column ``at``, two slices from ``k``."""
    return (k, k + 2), (0, SIDE), (at, at + SIDE)


def known(at: int, k: int = 0, *, down: int = 0, diameter_mm: float = 10.0) -> KnownLesion:
    box = (float(down), float(at), float(down + SIDE), float(at + SIDE))
    extent = (k, k + 2), (down, down + SIDE), (at, at + SIDE)
    return KnownLesion(extent=extent, diameter_mm=diameter_mm, volume_ml=0.2, boxes=((k, box), (k + 1, box)))


def found(at: int, k: int = 0, score: float = 1.0) -> FoundLesion:
    return FoundLesion(extent=cube(at, k), score=score, diameter_mm=10.0, volume_ml=0.2)


def box_at(at: float, k: int = 0, score: float = 1.0, down: float = 0.0) -> FoundBox:
    return FoundBox(k=k, box=(down, at, down + SIDE, at + SIDE), score=score, votes=1, views=1)


def record(
    name: str = "a",
    *,
    truth: list[KnownLesion] | None,
    lesions: list[FoundLesion] | None = None,
    boxes: list[FoundBox] | None = None,
    patient: str = "",
    condition: str = "crop",
    dice: float | None = None,
    liver_dice: float | None = 0.9,
    views: tuple[int, int] = (3, 3),
    seconds: float = 1.0,
) -> Record:
    """``views`` are those shown and those read."""
    return Record(
        case=name,
        patient=patient or name,
        condition=condition,
        slices=(0, 1, 2),
        liver_found=True,
        liver_dice=liver_dice,
        views_total=views[0],
        views_read=views[1],
        boxes=tuple(boxes or ()),
        found=tuple(lesions or ()),
        truth=None if truth is None else tuple(truth),
        dice=dice if truth else None,
        seconds=seconds,
    )
