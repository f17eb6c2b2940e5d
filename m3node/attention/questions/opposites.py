"""Words that exclude each other: who asks for one of them and hears the other, has heard a no."""

from __future__ import annotations

from itertools import permutations
from typing import Final

# Words that stand in one text are split: quotes around each would hide them.
# ruff: noqa: SIM905

Words = frozenset[str]

SOUND: Final = frozenset("normal unremarkable clear intact midline".split())
"""Says that nothing is the matter."""

_HOW: Final = frozenset(
    "abnormal pathologic enlarged widened dilated deviated shifted displaced thickened blunted elevated collapsed "
    "hyperinflated".split()
)
AMISS: Final = _HOW | frozenset("disease pathology process consolidation opacity infiltrate opacification".split())
"""Says that something is."""

_MEASURES: Final = frozenset("size limit within appear appears mildly moderately markedly severely".split())
"""Words beside these that name nothing."""

_EXCLUSIVE: Final = (
    (SOUND, AMISS),
    (frozenset({"left"}), frozenset({"right"})),
    (frozenset({"pa"}), frozenset({"ap"})),
    (
        frozenset("changed increased worsened enlarged larger bigger decreased improved smaller".split()),
        frozenset("unchanged stable".split()),
    ),
    (frozenset("increased worsened larger bigger".split()), frozenset("decreased improved smaller resolved".split())),
    (frozenset({"resolved"}), frozenset("persists persistent persist remains remain unchanged".split())),
)

_PLACES: Final = frozenset(
    """
    left right bilateral upper lower middle lobe lung pulmonary pleural pericardial heart mediastinum hilar perihilar
    rib apex apical base basal basilar side hemithorax zone field diaphragm costophrenic angle retrocardiac space
    """.split()
)
"""Where something is, not what: "pleural thickening" is no pleural effusion."""


def asks_if_sound(asked: Words) -> bool:
    """Whether a question asks if something is as it should be, rather than if anything is the matter."""
    return bool(asked & SOUND) and not asked & AMISS


def opposed(asked: Words, said: Words) -> bool:
    """Whether an answer holds what excludes a word of the question, and not that word.

    Only where it is about the same thing, or about nothing by name: that the heart is normal does not say that the
    mediastinum is not widened, nor that the right lung is clear, that there is nothing in the left one.
    """
    for one, other in _EXCLUSIVE:
        for here, there in ((one, other), (other, one)):
            if not (asked & here and said & there) or asked & there or said & here:
                continue
            if one is SOUND:
                return not _other_side(asked, said) and bool(
                    asked & said or not asked - here or not said - there - _MEASURES
                )
            return bool((asked - _PLACES) & said or not said - there - _MEASURES)
    return False


def _other_side(asked: Words, said: Words) -> bool:
    return any(one in asked and other in said and one not in said for one, other in permutations(("left", "right")))


def things(asked: Words) -> Words:
    """Words that say what is asked for, not where or how it is: an enlarged aorta is no enlarged heart."""
    return asked - _PLACES - _HOW
