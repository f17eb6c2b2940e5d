"""What is kept of one case in one condition: enough for every metric, so that metrics never need a detector."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from m3node.durable import write_over
from m3node.imaging.mask import Extent

SCHEMA = 1
"""Counts up when records change their meaning: older ones are then made anew."""

Box = tuple[float, float, float, float]
"""(r0, c0, r1, c1), half-open voxel edges of the volume."""


@dataclass(frozen=True, slots=True)
class FoundBox:
    """A box on one slice."""

    k: int
    box: Box
    score: float
    votes: int
    views: int


@dataclass(frozen=True, slots=True)
class FoundLesion:
    """A lesion as it would be reported.

    Attributes
    ----------
    extent : Extent
        Its 3-D box: half-open voxel bounds.
    score : float
        Fused score.
    diameter_mm, volume_ml : float
        Longest axial diameter, and volume.
    """

    extent: Extent
    score: float
    diameter_mm: float
    volume_ml: float


@dataclass(frozen=True, slots=True)
class KnownLesion:
    """A true lesion.

    Attributes
    ----------
    extent : Extent
        Its 3-D box.
    diameter_mm, volume_ml : float
        Longest axial diameter on its largest slice, and volume.
    boxes : tuple of (int, Box)
        Slice and box on it, for each slice that it is on.
    """

    extent: Extent
    diameter_mm: float
    volume_ml: float
    boxes: tuple[tuple[int, Box], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One case in one condition.

    Attributes
    ----------
    case, patient, condition : str
        Whose it is.
    slices : tuple of int
        Slices that the detector was shown.
    liver_found : bool
        Whether there was a liver region; without one nothing was shown.
    liver_dice : float or None
        Of the region's parenchyma with the true liver, 0 without a region; None where the true one is not known.
    views_total, views_read : int
        Views shown, and views whose answer could be read.
    boxes : tuple of FoundBox
        Boxes slice by slice, as they stand after whatever the condition does to them.
    found : tuple of FoundLesion
        Lesions in 3-D, best first.
    truth : tuple of KnownLesion or None
        True lesions; empty for a healthy case, None where they are not known.
    dice : float or None
        3-D Dice of all found with all true lesions; None without true lesions.
    seconds : float
        What the detector and the method took.
    """

    case: str
    patient: str
    condition: str
    slices: tuple[int, ...]
    liver_found: bool
    liver_dice: float | None
    views_total: int
    views_read: int
    boxes: tuple[FoundBox, ...]
    found: tuple[FoundLesion, ...]
    truth: tuple[KnownLesion, ...] | None
    dice: float | None
    seconds: float


_ADAPTER = TypeAdapter(Record)


def save_record(record: Record, path: Path) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_over(path, _ADAPTER.dump_json(record, indent=1) + b"\n")


def load_record(path: Path) -> Record | None:
    """Read a record; None when there is none that can be read, so that it is made anew."""
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
