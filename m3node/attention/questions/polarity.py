"""What a sentence says to a question for yes or no: the table of rules, in the order in which they are asked.

Every rule is about whole words: "know" holds no "no", "abnormal" no "normal". The rules know English only, and read
what is said, not what is true. docs/attention.md shows each with examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from m3node.attention.questions.opposites import SOUND, asks_if_sound, opposed, things
from m3node.attention.questions.wording import BE, clauses, plain_words, sentences, topics

YES: Final = "yes"
NO: Final = "no"
UNKNOWN: Final = "unknown"

OUTRIGHT: Final = {
    **dict.fromkeys(
        ("yes", "y", "yeah", "yep", "true", "correct", "affirmative", "positive", "present", "definitely", "certainly"),
        YES,
    ),
    **dict.fromkeys(("no", "n", "nope", "false", "incorrect", "negative", "absent", "none", "nil", "0"), NO),
    **dict.fromkeys(("unknown", "unsure", "uncertain", "unclear", "indeterminate", "equivocal", "maybe"), UNKNOWN),
}
"""What a whole answer may consist of."""

_CLEAR = {word: said for word, said in OUTRIGHT.items() if word not in {"y", "n", "none", "nil", "0"}}
"""What decides a sentence where it stands alone between commas, colons or full stops: "No, but …", "Effusion: no"."""

_SEEN = (
    r"(?:present|seen|visible|visuali[sz]ed|identified|noted|evident|apparent|detected|observed"
    r"|demonstrated|found|there)"
)


_UNDECIDED = re.compile(
    r"\b(?:"
    r"(?:can|could|may) not (?:\w+ )?(?:be )?(?:\w+ )?"
    r"(?:excluded?|rule out|ruled out|determined?|tell|say|said|assess|assessed|evaluated?|answer|answered"
    r"|confirm|confirmed|concluded?|judged?)"
    r"|can not (?:see|view|access|open) (?:\w+ )?(?:images?|x|radiographs?|pictures?|scans?)"
    r"|not (?:\w+ )?(?:excluded|ruled out|sure|certain|known)|it is not (?:\w+ )?clear|not clear (?:if|whether|from)"
    r"|(?:do|does) not know|not (?:possible|able) to"
    r"|impossible to|unable to|no way to|insufficient|not enough (?:information|detail|evidence)"
    r"|difficult to (?:say|tell|determine|assess)"
    r"|unknown|unsure|uncertain|unclear|indeterminate|equivocal|inconclusive"
    r")\b"
)
"""That nothing can be said, or that it cannot be excluded: goes for the whole sentence."""

_PERHAPS = re.compile(r"\b(?:maybe|perhaps|possible|possibly|might|(?:may|could) (?:be|represent))\b")

_DENIES = re.compile(
    rf"\b(?:no|none|neither|nor|never|unlikely|fails? to|{BE} not|not (?:\w+ ){{0,2}}{_SEEN}|{BE} (?:\w+ )?absent"
    r"|absence of|negative for|free (?:of|from)|(?:is|are|was|were|been) (?:\w+ )?(?:excluded|ruled out))\b"
    r"|^(?:without|not|absent|false|incorrect)\b|\bnot$"
)

_NOTHING_THERE = re.compile(rf"^(?:there {BE} )?(?:no|none|neither|not|without|absent|negative)\b|\bnot {_SEEN}\b")
"""To a question for more than yes or no: that there is nothing of it. "The right one is not affected" is not that."""

_GONE = re.compile(r"\b(?:has|have) (?:(?:now|since|completely|fully) )?(?:resolved|cleared)\b")
"""A no, unless that was asked."""

_IS_THERE = re.compile(rf"\b{BE} (?:\w+ ){{0,2}}{_SEEN}$|^(?:positive for|evidence of)\b")
"""That something is there, and nothing more."""

_STATES = re.compile(
    rf"\b(?:there {BE}|{BE} (?:\w+ ){{0,2}}{_SEEN}|shows?|demonstrates?|reveals?|exhibits?|indicates?|suggests?"
    r"|consistent with|compatible with|suggestive of|indicative of|evidence of)\b"
)
"""That something is there, with more about it."""


_WITHOUT = re.compile(r"with no\b|without\b")

_YES_OR_NO = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might|any)\b|.*\b(?:whether|if)\b"
)
_CHOICE = re.compile(r"\bor\b(?! not\b)")
_EITHER = re.compile(
    r"(?:(?:is|are|was|were) there|any)\b|(?:do|does|did|can|could) .*\b(?:see|have|show|find|any|evidence)\b"
)
"""Asks whether there is one thing or the other: yes, if there is either."""


def asks_yes_or_no(question: str) -> bool:
    """Whether a question is for yes or no: by its first word, or "whether".

    "Is it left or right?" leaves a choice, and is not; "is there a nodule or a mass?" is.
    """
    words = plain_words(question)
    return bool(_YES_OR_NO.match(words)) and bool(_EITHER.match(words) or not _CHOICE.search(words))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One wording of a question.

    Attributes
    ----------
    topics : frozenset of str
        What it is about.
    wanted : frozenset of str
        What an answer has to hold to say that it is so: of a question whether there is something, that something.
    """

    topics: frozenset[str]
    wanted: frozenset[str]

    @classmethod
    def of(cls, question: str) -> _Asked:
        about = topics(question)
        return cls(about, things(about) if _EITHER.match(plain_words(question)) else about)


def polarity(text: str, asked: Iterable[str], *, closed: bool | None) -> str:
    """Say whether a text means yes, no, or that it is not known.

    Parameters
    ----------
    text : str
        An answer.
    asked : iterable of str
        The question, in as many wordings as there are. Clauses that share a word with it go before those that do not.
    closed : bool or None
        Whether it was for yes or no; None when that is not known.

    Returns
    -------
    str
        `YES`, `NO`, `UNKNOWN`; empty when it says none of them.
    """
    every = [found for sentence in sentences(text) if (found := clauses(sentence))]
    if not every:
        return ""
    if every[0][0] in _CLEAR:
        return _CLEAR[every[0][0]]
    about = [found for found in map(_Asked.of, asked) if found.topics]
    if closed is False:
        return _of_sentence(every[0], about, closed=closed)  # what is not there may well be mentioned further on
    near = [sentence for sentence in every if any(_touches(clause, about) for clause in sentence)] or every
    said = next((said for sentence in near if (said := _of_sentence(sentence, about, closed=closed))), "")
    excluded = any(_opposed(clause, about) for sentence in near for clause in sentence)
    return said or (NO if closed and excluded else "")


def _of_sentence(sentence: list[str], about: list[_Asked], *, closed: bool | None) -> str:
    alone = next((_CLEAR[clause] for clause in sentence if clause in _CLEAR), "")
    if alone:
        return alone
    if any(_UNDECIDED.search(clause) for clause in sentence):
        return UNKNOWN
    if not closed:  # what something comes without is not what was asked for
        sentence = [clause for at, clause in enumerate(sentence) if at == 0 or not _WITHOUT.match(clause)]
    near = [clause for clause in sentence if _touches(clause, about)]
    found = (_of_clause(clause, about, closed=closed) for clause in near or sentence)
    return next((said for said in found if said is not None), "")


def _of_clause(clause: str, about: list[_Asked], *, closed: bool | None) -> str | None:
    """As `polarity`; None when the next clause may still say it."""
    if re.match(r"yes\b", clause):
        return YES
    if _PERHAPS.search(clause):
        return UNKNOWN
    if (_NOTHING_THERE if closed is False else _DENIES).search(clause):
        return _denied(clause, about) if closed else NO
    if closed:
        return _claimed(clause, about)
    if closed is None and _IS_THERE.search(clause):
        return YES
    return "" if _STATES.search(clause) else None


def _claimed(clause: str, about: list[_Asked]) -> str | None:
    """What a clause without a negation says to a question for yes or no."""
    words = topics(clause)
    if _opposed(clause, about):
        return None
    if _GONE.search(clause) and not any("resolved" in asked.topics for asked in about):
        return NO
    if any(_says_all(words, asked.topics) for asked in about) or _is_one_of_its_words(clause, about):
        return YES
    meant = not about or any(words & asked.wanted and not asks_if_sound(asked.topics) for asked in about)
    if meant:
        return YES if _IS_THERE.search(clause) or _STATES.search(clause) else None
    return YES if not words and _IS_THERE.search(clause) else None


def _says_all(words: frozenset[str], asked: frozenset[str]) -> bool:
    """Whether an answer holds all that was asked; of soundness in any word for it."""
    sound = asks_if_sound(asked) and bool(words & SOUND)
    return asked <= words or (sound and bool(words & (asked - SOUND) or not words - SOUND))


def _denied(clause: str, about: list[_Asked]) -> str | None:
    """To whether it is normal, "no abnormality" is a yes; to whether it is enlarged, "not normal" is none."""
    words = topics(clause)
    opposites = [asked for asked in about if opposed(asked.topics, words)]
    if any(asks_if_sound(asked.topics) for asked in opposites):
        return YES
    return None if opposites and words & SOUND else NO


def _opposed(clause: str, about: list[_Asked]) -> bool:
    """Whether a clause that denies nothing holds what excludes what was asked."""
    words = topics(clause)
    return not _DENIES.search(clause) and any(opposed(asked.topics, words) for asked in about)


def _is_one_of_its_words(clause: str, about: list[_Asked]) -> bool:
    """ "Enlarged." to whether the heart is enlarged."""
    return " " not in clause and any(topics(clause) and topics(clause) <= asked.topics for asked in about)


def _touches(clause: str, about: list[_Asked]) -> bool:
    return any(asked.topics & topics(clause) for asked in about)
