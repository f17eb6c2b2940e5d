"""Answers and questions as plain words, in one wording of several; their clauses, and what they are about."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NUMBERS: Final = ("zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS: Final = {word: str(number + (number > 0)) for number, word in enumerate(_NUMBERS)}

_WORDINGS: Final = (
    (re.compile(rf"\b(?:{'|'.join(_NUMBERS)})\b"), lambda found: _DIGITS[found[0]]),
    (re.compile(r"^((?:there is )?(?:only )?)one\b(?=$| \w+$)"), r"\g<1>1"),  # "the left one" counts nothing
    (re.compile(r"\b(left|right) (?:hand )?sided?\b"), r"\1"),
    (re.compile(r"^(?:on |in )?both$|\bboth sides\b|\bboth(?= lungs\b)|\bbilaterally\b"), "bilateral"),
    (re.compile(r"\b(?:x rays?|xrays?|radiographs?)\b"), "x ray"),
    (re.compile(r"\bpostero ?anterior\b|\bposterior anterior\b|\bposterior to anterior\b"), "pa"),
    (re.compile(r"\bantero ?posterior\b|\banterior posterior\b|\banterior to posterior\b"), "ap"),
    (re.compile(r"\b(?:larger|bigger|greater) than normal\b"), "enlarged"),
    (re.compile(r"\b(?:outside|beyond) (?:of )?normal(?: limits?| range)?\b"), "abnormal"),
    (re.compile(r"oe(?=dema|soph)"), "e"),
    (re.compile(r"haem"), "hem"),
    (re.compile(r"tumour"), "tumor"),
)

BE = r"(?:is|are|was|were|been|has|have|had|do|does|did|can|could|should|would)"
"""Of an expression: what may stand between a thing and what is said of it."""

_WORD = re.compile(r"\d+(?:[.,]\d+)*|(?:[^\W\d_][\u0300-\u036f]*)+")

_ARTICLE = re.compile(r"\b(?:a|an|the) (?=\w)")

_NOT_MEANT = re.compile(
    r"\b(?:(?:no|without) doubt|not (?:only|just|merely)|with or without|clear(?= (?:evidence|signs?|indications?)))\b"
)
"""Holds a word that decides, and decides nothing: taken out before anything else is looked for."""

_BEYOND = re.compile(r"\bthan normal\b")
"""Of a text's topics: what is higher than normal is not normal."""

_NO_CHANGE = re.compile(
    r"\b(?:(?:no|without) (?:\w+ ){0,2}changes?|(?:has|have) not (?:\w+ )?(?:changed|resolved|cleared))\b"
)
"""Says that something is still there."""

_NOR = re.compile(
    rf"\b(?:no|not|without|neither|never|negative for|free of|absence of)\b(?!\s*,)"
    rf"(?:(?!\b(?:but|however|although|though|while|whereas|there|with|shows?|{BE})\b)[^.;:\u2013\u2014]){{0,200}}\b(?:or|nor)\b",
    re.IGNORECASE,
)
"""No A, B, or C: the commas part no clauses."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|;\s*")

_CLAUSE = re.compile(
    r",\s+|:\s+|\s[–—-]\s|\b(?:but|however|although|though|while|whereas)\b|\band\b(?= (?:no|there)\b)"
    r"|(?=\bwith no\b)|(?<!\bor )(?=\bwithout\b)",
    re.IGNORECASE,
)

_NO_TOPIC = frozenset(
    """
    is are was were do does did has have had can could will would should may might any be been whether if or not and of
    in on at to for from with by this that these those there here it its you your we i me us see seen show shown shows
    tell say find found look looks looking visible present identify identified evident apparent detect detected observe
    observed evidence sign signs indication finding findings image images picture radiograph xray x ray film scan ct
    chest patient patients please state answer question what which where who how many much yes no as than some suggest
    suggests acute anywhere currently again one study exam examination several
    """.split()  # noqa: SIM905 - a hundred quotes would hide the words
)
"""Words of a question that do not say what it is about."""

_SAME_TOPIC = {
    "cardiomegaly": ("heart", "enlarged"),
    "cardiac": ("heart",),
    "mediastinal": ("mediastinum",),
    "tracheal": ("trachea",),
    "enlargement": ("enlarged",),
    "widening": ("widened",),
    "thickening": ("thickened",),
    "blunting": ("blunted",),
    "deviation": ("deviated",),
    "dilatation": ("dilated",),
    "dilation": ("dilated",),
    "displacement": ("displaced",),
    "abnormality": ("abnormal",),
    "pleura": ("pleural",),
}
"""Words that say what others say."""


def plain_words(text: str) -> str:
    """Words in lower case, one space apart; no punctuation, no articles but at the end, "not" written out."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    text = re.sub(r"\bcan't\b|\bcannot\b", "can not", text)
    text = re.sub(r"\bwon't\b", "will not", text)
    text = re.sub(r"n't\b", " not", text)
    return _one_wording(_ARTICLE.sub("", " ".join(_WORD.findall(text))))


def singular(words: str) -> str:
    """Every word in the singular, as far as endings tell."""
    return " ".join(_singular(word) for word in words.split())


def sentences(text: str) -> list[str]:
    """Split a text into those that hold a word; questions that it repeats are none of them."""
    every = [sentence for sentence in _SENTENCE.split(text) if plain_words(sentence)]
    return [sentence for sentence in every if not sentence.rstrip().endswith("?")] or every


def clauses(sentence: str) -> list[str]:
    """What stands between commas and words such as "but", as plain words, less what only looks like a negation."""
    sentence = _NOR.sub(lambda found: found[0].replace(",", " "), sentence)
    plain = (_NO_CHANGE.sub("unchanged", plain_words(clause)) for clause in _CLAUSE.split(sentence))
    plain = (_NOT_MEANT.sub(" ", clause) for clause in plain)
    return [" ".join(clause.split()) for clause in plain if clause.strip()]


def topics(text: str) -> frozenset[str]:
    """What a text is about: its words, in the singular, less those that any question may have."""
    plain = _BEYOND.sub("abnormal", _NOT_MEANT.sub(" ", plain_words(text)))
    words = (word for word in plain.split() if word not in _NO_TOPIC)
    return frozenset(same for word in words for same in _SAME_TOPIC.get(singular(word), (singular(word),)))


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "is", "us")) else word


def _one_wording(words: str) -> str:
    """Bring plain words to one wording where there are several that every reader takes for the same."""
    for pattern, wording in _WORDINGS:
        words = pattern.sub(wording, words)
    return words
