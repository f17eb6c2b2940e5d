"""The kinds of changes there are, how strong each is when nothing else is asked for, and how strong it may be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to the picture as the model is shown it."""

    NOISE = "noise"
    CONTRAST = "contrast"
    BRIGHTNESS = "brightness"
    BLUR = "blur"
    PIXELS = "pixels"
    ROTATION = "rotation"
    CROP = "crop"
    PAD = "pad"


@dataclass(frozen=True, slots=True)
class KindFacts:
    """What is known of a kind.

    Attributes
    ----------
    default : float
        Its strength when none is named.
    lowest, highest : float
        Strengths that there are.
    nothing : float
        The strength that leaves the image as it is, to the byte.
    meaning : str
        What the strength says.
    whole : bool
        Only whole numbers are strengths.
    moves : bool
        Pixels move: grids are compared after the geometry is undone.
    """

    default: float
    lowest: float
    highest: float
    nothing: float
    meaning: str
    whole: bool = False
    moves: bool = False


KINDS: dict[Kind, KindFacts] = {
    Kind.NOISE: KindFacts(10.0, 0.0, 255.0, 0.0, "Gaussian noise, its standard deviation in grey levels of 0…255"),
    Kind.CONTRAST: KindFacts(0.7, 0.0, 10.0, 1.0, "factor by which grey levels lie away from the image's mean"),
    Kind.BRIGHTNESS: KindFacts(20.0, -255.0, 255.0, 0.0, "grey levels added"),
    Kind.BLUR: KindFacts(0.005, 0.0, 0.25, 0.0, "Gaussian blur, its standard deviation as a share of the longer side"),
    Kind.PIXELS: KindFacts(
        20.0, 0.0, 10_000.0, 0.0, "how many dots, of a 512th of the longer side, are set in the body", whole=True
    ),
    Kind.ROTATION: KindFacts(
        5.0, -180.0, 180.0, 0.0, "degrees, counter-clockwise, about the middle of the image", moves=True
    ),
    Kind.CROP: KindFacts(0.1, 0.0, 0.9, 0.0, "share of the rows and of the columns that is cut off", moves=True),
    Kind.PAD: KindFacts(0.1, 0.0, 4.0, 0.0, "black rows and columns added, as a share of those there are", moves=True),
}
"""Every kind; the order is that of tables and pictures."""
