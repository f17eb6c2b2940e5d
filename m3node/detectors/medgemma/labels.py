"""What the label of a written box says that it is: a lesion, another structure, or nothing at all.

The question asks for lesions, so a box is one unless its label says otherwise. English, as the questions are.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from enum import Enum
from itertools import dropwhile

_WORD = re.compile(r"[^\W_]+")
_NUMBERED = re.compile(r"\bno\.?\s*[0-9]+", re.IGNORECASE)
"""As in "lesion no. 2", which denies nothing."""


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


_STRUCTURES = _words("""
    abdomen adrenal aorta artery background bile body bone bowel cava colon diaphragm duct ducts duodenum esophagus
    fat fissure gallbladder gland gut heart intestine ivc kidney kidneys ligament liver livers lobe lobes lung lungs
    muscle muscles organ organs padding pancreas parenchyma rib ribs segment segments spine spleen stomach tissue
    vein veins vertebra vertebrae vessel vessels
    """)
"""Anatomy, parts of the liver among it."""

_WITH_IT = _words("""
    a abdominal an and aortic appears are area at biliary caudate caval common hepatic in inferior is left lower main
    margin middle of on parenchymal portal quadrate region renal right side splenic superior surface the this to
    upper vena venous vertebral wall with 1 2 3 4 4a 4b 5 6 7 8 i ii iii iv iva ivb v vi vii viii
    """)
"""Words that go with anatomy, and say nothing of a lesion."""

_SOUND = _words("healthy normal unremarkable")

_DENYING = _words("absence absent empty false negative nil no none not nothing null unaffected without")
"""Deny as the first word that says anything, as in "no lesion" or "liver: no lesion"."""

_LAST = _words("absent excluded false negative nil no none null")
"""Deny as the last word, as in "lesion: none"."""

_FINDINGS = _words("""
    abnormal abnormalities abnormality disease finding findings focal focus lesion lesions mass masses metastases
    metastasis nodule nodules pathology tumor tumors tumour tumours
    """)

_PERCEIVED = _words("apparent detected evident found identified present seen visible visualised visualized")

_NEAR = 3
"""Words behind a "no" among which stands what it denies, as in "no focal liver lesion"."""


class Named(Enum):
    """What a box is of."""

    LESION = "lesion"
    STRUCTURE = "structure"
    NOTHING = "nothing"


def what_is_named(label: str) -> Named:
    """Read a label.

    Parameters
    ----------
    label : str
        As it was written; may be empty.

    Returns
    -------
    Named
        ``STRUCTURE`` for what is made of words of anatomy alone ("right kidney", "normal liver", "segment VII").
        ``NOTHING`` for what denies a finding ("no lesion", "none", "normal", "lesion not seen").
        Else ``LESION``, whatever it is called ("mass", "cyst", "renal cyst"): where it lies is told by its box.
    """
    words = _WORD.findall(_NUMBERED.sub(" ", label).casefold())
    if not _STRUCTURES.isdisjoint(words) and set(words) <= _STRUCTURES | _WITH_IT | _SOUND:
        return Named.STRUCTURE
    return Named.NOTHING if _denies(words) else Named.LESION


def _denies(words: list[str]) -> bool:
    telling = list(dropwhile((_STRUCTURES | _WITH_IT).__contains__, words))
    return (
        words == ["n", "a"]
        or not (_DENYING | _SOUND).isdisjoint(telling[:1])
        or not _LAST.isdisjoint(words[-1:])
        or _followed(words, {"no", "without"}, _FINDINGS, within=_NEAR)
        or _followed(words, {"non"}, _FINDINGS, within=1)
        or _followed(words, {"not"}, _PERCEIVED, within=1)
        or _followed(words, {"free"}, {"of", "from"}, within=1)
        or _followed(words, _FINDINGS, {"free"}, within=1)
    )


def _followed(words: list[str], first: AbstractSet[str], second: AbstractSet[str], *, within: int) -> bool:
    """Tell whether a word of the first kind is followed by one of the second, within so many words."""
    return any(
        word in first and not second.isdisjoint(words[at + 1 : at + 1 + within]) for at, word in enumerate(words)
    )
