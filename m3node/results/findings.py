"""The raw findings of one run: persisted before any object is built, and all that building needs besides the source.

``findings.json`` holds the words and numbers, ``masks.npz`` beside it the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from m3node.detectors.protocols import AttentionGrid, Box2D, DetectorIdentity
from m3node.liver.region import LiverRegion
from m3node.m3.lesion import Lesion
from m3node.rejection import Rejection


class Outcome(StrEnum):
    """What a run says of a stack."""

    LESIONS = "lesions"
    NO_LESION = "no-lesion"
    NO_LIVER = "no-liver"
    INCOMPLETE = "incomplete"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class PredecessorReport:
    """An SR of the generation before, for Predecessor Documents Sequence (PS3.3 C.17.2)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, eq=False)
class KeyAttention:
    """Where the model looked on a slice that is shown.

    Attributes
    ----------
    slice_index : int
        ``k``.
    grid : AttentionGrid
        Its area in the volume's rows and columns.
    box : Box2D or None
        The model's own box whose words looked there, in the volume's rows and columns; None for a whole answer.
    lesion : int or None
        Number of the lesion whose key slice it is; None where nothing was found.
    padding : float
        Of the view that was answered.
    """

    slice_index: int
    grid: AttentionGrid
    box: Box2D | None
    lesion: int | None
    padding: float


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What was found in one generation of one stack.

    Attributes
    ----------
    manifest_key : str
        The generation it answers.
    outcome : Outcome
        The one-word answer; ``NO_LIVER`` is never ``NO_LESION``.
    content_time : str
        ISO 8601 with offset: content date and time of every object, fixed here once.
    software_version : str
        m3node's version.
    detector : DetectorIdentity
        Who looked.
    settings_digest : str
        SHA-256 over the settings that change results.
    region : LiverRegion or None
        None without a liver.
    lesions : tuple of Lesion
        By number.
    views_total, views_read : int
        Views shown and read.
    failures : tuple of str
        Unreadable views.
    tracking_uids : tuple of str
        Tracking Unique Identifier of each lesion, in order; a lesion that matches one of the generation before
        keeps its UID (decision 8 of the design).
    predecessors : tuple of PredecessorReport
        SRs of the generation before, which ours supersede.
    rejection : Rejection or None
        Set when and only when ``outcome`` is ``REJECTED``.
    attention : tuple of KeyAttention
        By slice; empty when it was not asked for, or the detector cannot tell it. Its order is that of the frames of
        the capture and of the Parametric Map.
    """

    manifest_key: str
    outcome: Outcome
    content_time: str
    software_version: str
    detector: DetectorIdentity
    settings_digest: str
    region: LiverRegion | None
    lesions: tuple[Lesion, ...]
    views_total: int
    views_read: int
    failures: tuple[str, ...]
    tracking_uids: tuple[str, ...]
    predecessors: tuple[PredecessorReport, ...]
    rejection: Rejection | None
    attention: tuple[KeyAttention, ...] = ()
