"""The liver region: two masks of one liver, and where they come from (decision 11 of the design)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from m3node.imaging.mask import VoxelMask


class LiverSource(StrEnum):
    """Where a liver region was taken from."""

    RECEIVED_SEG = "received-seg"
    EMBEDDED = "embedded"
    LABEL_MAP = "label-map"


@dataclass(frozen=True, slots=True, eq=False)
class LiverRegion:
    """A liver.

    Attributes
    ----------
    parenchyma : VoxelMask
        Liver tissue: what the SEG's liver segment shows and Dice is computed on.
    envelope : VoxelMask
        Parenchyma closed, filled, made convex and dilated in mm: what crops, the filter and steering use. Lesions
        at the border lie inside it even where the parenchyma misses them.
    source : LiverSource
        Which way it was found.
    reference : str
        SOP Instance UID of the received SEG; empty otherwise.
    algorithm : str
        Name and version of the algorithm, for the SEG's Segment Algorithm Name.
    """

    parenchyma: VoxelMask
    envelope: VoxelMask
    source: LiverSource
    reference: str
    algorithm: str
