"""The two kinds of detector and what passes between them and the method (decision 12 of the design)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from m3node.imaging.mask import BoolArray, VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion
from m3node.progress import Progress


class ScoreKind(StrEnum):
    """What a score means; scores of different kinds are never compared."""

    CONTRAST = "contrast-to-noise"
    TOKEN_PROBABILITY = "token-probability"
    PROBABILITY = "probability"


@dataclass(frozen=True, slots=True)
class DetectorIdentity:
    """Who found it: goes into SR (TID 4019, Contributing Equipment) and into the UIDs.

    Attributes
    ----------
    name, version : str
        Algorithm Name and Version.
    description : str
        One sentence for the report: what the detector is and is not.
    weights : str
        Digest and name of model weights; empty without a model.
    parameters : tuple of (str, str)
        Every parameter that changes its answers, sorted by name.
    """

    name: str
    version: str
    description: str
    weights: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Box2D:
    """An axis-aligned box on one slice or view, half-open voxel *edges*: it covers [r0, r1) × [c0, c1).

    In DICOM image coordinates its corners are (c0, r0) and (c1, r1).
    """

    r0: float
    c0: float
    r1: float
    c1: float


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A padded crop of one slice, as a crop detector sees it.

    Attributes
    ----------
    hu : ndarray of int16, shape (rows, columns)
        HU of the crop; never masked.
    envelope : ndarray of bool, same shape
        The liver's envelope on it.
    parenchyma : ndarray of bool, same shape
        Liver tissue on it.
    slice_index : int
        ``k`` of the volume.
    origin : tuple of int
        Row and column of the volume at the crop's first voxel: view (r, c) is volume (r + origin[0], c + origin[1]).
    spacing : tuple of float
        mm between rows, between columns.
    padding : float
        Fraction of the envelope's box that was added on each side.
    whole : bool
        It is the whole slice, not a crop of it.
    """

    hu: npt.NDArray[np.int16]
    envelope: BoolArray
    parenchyma: BoolArray
    slice_index: int
    origin: tuple[int, int]
    spacing: tuple[float, float]
    padding: float
    whole: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AttentionGrid:
    """Where a model looked while it answered.

    Attributes
    ----------
    values : ndarray of float32, shape (cells down, cells across)
        Share of the attention that went to each cell; at least 0, at most 1 in all (the rest went to text).
    area : Box2D
        What the cells cover together, in rows and columns of whatever holds the grid: of the view in a `ViewResult`,
        of the slice in a `SliceAttention`. May reach beyond it, since views are padded to a square.
    """

    values: npt.NDArray[np.float32]
    area: Box2D


@dataclass(frozen=True, slots=True, eq=False)
class ViewBox:
    """A box in the rows and columns of its view; a mask of the view, or attention, where the detector has one.

    ``attention`` is that of the box's own words, when the detector was asked to keep it.
    """

    box: Box2D
    score: float
    mask: BoolArray | None = None
    attention: AttentionGrid | None = None


@dataclass(frozen=True, slots=True)
class ViewResult:
    """A crop detector's answer for one view.

    Attributes
    ----------
    boxes : tuple of ViewBox
        May be empty: "nothing seen" is an answer.
    raw_text : str
        What a language model said; empty otherwise.
    failure : str
        Why the view could not be read; empty when it was.
    attention : AttentionGrid or None
        That of the whole answer, after thinking; kept when the detector was asked to.
    """

    boxes: tuple[ViewBox, ...]
    raw_text: str = ""
    failure: str = ""
    attention: AttentionGrid | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SliceAttention:
    """Attention on one slice, from one view's answer.

    Attributes
    ----------
    slice_index : int
        ``k``.
    grid : AttentionGrid
        Its area in the volume's rows and columns.
    box : Box2D or None
        The box whose words looked there, in the volume's rows and columns; None for a whole answer.
    padding : float
        Of the view.
    """

    slice_index: int
    grid: AttentionGrid
    box: Box2D | None
    padding: float


@dataclass(frozen=True, slots=True)
class SliceBox:
    """A fused box on one slice, in the volume's rows and columns."""

    slice_index: int
    box: Box2D
    score: float
    votes: int
    views: int


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A 3-D finding before it is measured.

    Attributes
    ----------
    boxes : tuple of SliceBox
        One a slice at most, by slice.
    score : float
        Fused score of the whole candidate.
    score_kind : ScoreKind
        What the score means.
    mask : VoxelMask or None
        Voxels, where the detector gives them.
    """

    boxes: tuple[SliceBox, ...]
    score: float
    score_kind: ScoreKind
    mask: VoxelMask | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """Everything a detector says of one volume.

    Attributes
    ----------
    candidates : tuple of Candidate
        Best first.
    views_total, views_read : int
        Views shown, and views whose answer could be read; equal when every answer was read.
    failures : tuple of str
        One line for each unreadable view, at most 20 of them.
    attention : tuple of SliceAttention
        By slice, for every view and box whose attention was kept.
    """

    candidates: tuple[Candidate, ...]
    views_total: int
    views_read: int
    failures: tuple[str, ...] = field(default=())
    attention: tuple[SliceAttention, ...] = field(default=())


@runtime_checkable
class KeepsAttention(Protocol):
    """A detector, of either kind, that can tell where it looked; asked to by setting ``keep_attention``."""

    keep_attention: bool


@runtime_checkable
class Detector(Protocol):
    """Finds lesions in a whole volume."""

    @property
    def identity(self) -> DetectorIdentity:
        """Who it is."""
        ...

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        """Find candidates in the region's envelope."""
        ...


@runtime_checkable
class CropDetector(Protocol):
    """Finds boxes on single padded crops; the M3 method makes it a `Detector`."""

    @property
    def identity(self) -> DetectorIdentity:
        """Who it is."""
        ...

    @property
    def score_kind(self) -> ScoreKind:
        """What its scores mean."""
        ...

    def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        """Answer each view, in order; batches as it likes.

        ``volume`` and ``region`` are there for what a crop cannot tell, such as the liver's own HU distribution.
        """
        ...


Answered = Callable[[int], None]
"""Called, again and again, with how many of the views are answered; what it raises ends the work."""


@runtime_checkable
class TellsAnswered(Protocol):
    """A crop detector that answers so many views together that it is asked to tell in between how far it is."""

    def look_telling(
        self, views: Iterable[View], volume: CTVolume, region: LiverRegion, answered: Answered
    ) -> Iterator[ViewResult]:
        """Do as `CropDetector.look`, and tell while none of a batch's results can be given yet."""
        ...
