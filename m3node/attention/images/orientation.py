"""Which side of an image is the patient's left, which the head's."""

from __future__ import annotations

from collections.abc import Sequence

from m3node.attention.images.image import Side

Sides = tuple[Side | None, Side | None]
"""The sides at which the patient's left and the patient's head lie; None where an image does not show them."""

UNKNOWN: Sides = (None, None)

_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
_NEAREST = 0.7071
"""Cosine of 45°: an axis farther from both directions of the image runs through it rather than along it."""


def sides_by_letters(directions: Sequence[str]) -> Sides:
    """Read Patient Orientation (PS3.3 C.7.6.1.1.1): where rows, then columns, run to as their index rises.

    The first letter of each is its main direction. Anything but letters of a biped that go together is not guessed at.

    Parameters
    ----------
    directions : sequence of str
        ``("L", "F")`` of a frontal chest as it is mostly shown.
    """
    if len(directions) != 2 or not all(map(_is_direction, directions)):
        return UNKNOWN
    along, down = directions[0][0], directions[1][0]
    if down in {along, _OPPOSITE[along]}:
        return UNKNOWN
    ends: dict[str, Side] = {along: "right", _OPPOSITE[along]: "left", down: "bottom", _OPPOSITE[down]: "top"}
    return ends.get("L"), ends.get("H")


def _is_direction(letters: str) -> bool:
    """Whether letters name one direction: "LF" does, "LR" and "LL" do not."""
    known = set(letters) <= set(_OPPOSITE)
    return bool(letters) and known and len({min(letter, _OPPOSITE[letter]) for letter in letters}) == len(letters)


def sides_by_cosines(orientation: Sequence[float]) -> Sides:
    """Read Image Orientation (Patient) (PS3.3 C.7.6.2.1.1): x rises to the patient's left, z to the head.

    Parameters
    ----------
    orientation : sequence of float
        Direction of a row, then of a column, unit vectors, LPS.
    """
    along, down = orientation[:3], orientation[3:]
    return _side(along[0], down[0]), _side(along[2], down[2])


def _side(along: float, down: float) -> Side | None:
    if abs(along) >= max(abs(down), _NEAREST):
        return "right" if along > 0 else "left"
    if abs(down) >= _NEAREST:
        return "bottom" if down > 0 else "top"
    return None
