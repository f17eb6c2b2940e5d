"""One wording for what is written in several ways: numbers, spellings, sides, projections."""

from __future__ import annotations

import re
from typing import Final

_NUMBERS: Final = ("zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS: Final = {word: str(number + (number > 0)) for number, word in enumerate(_NUMBERS)}

_WORDINGS: Final = (
    (re.compile(rf"\b(?:{'|'.join(_NUMBERS)})\b"), lambda found: _DIGITS[found[0]]),
    (re.compile(r"^((?:there is )?(?:only )?)one\b(?=$| \w+$)"), r"\g<1>1"),  # "the left one" counts nothing
    (re.compile(r"\b(left|right) (?:hand )?side(?:d)?\b"), r"\1"),
    (re.compile(r"^(?:on |in )?both$|\bboth sides\b|\bboth(?= lungs\b)|\bbilaterally\b"), "bilateral"),
    (re.compile(r"\b(?:x rays?|xrays?|radiographs?)\b"), "x ray"),
    (re.compile(r"\bpostero ?anterior\b|\bposterior anterior\b|\bposterior to anterior\b"), "pa"),
    (re.compile(r"\bantero ?posterior\b|\banterior posterior\b|\banterior to posterior\b"), "ap"),
    (re.compile(r"oe(?=dema|soph)"), "e"),
    (re.compile(r"haem"), "hem"),
    (re.compile(r"tumour"), "tumor"),
)


def one_wording(words: str) -> str:
    """Bring plain words to one wording where there are several that every reader takes for the same."""
    for pattern, wording in _WORDINGS:
        words = pattern.sub(wording, words)
    return words
