"""When two answers say the same, and when an answer is right."""

from __future__ import annotations

import re

from m3node.attention.questions.polarity import NO, OUTRIGHT, UNKNOWN, YES, asks_yes_or_no, polarity
from m3node.attention.questions.wording import clauses, plain_words, sentences, singular

_ANSWER = re.compile(r"\b(?:answer is|answer\s*:)[\s:*_\"'(]*", re.IGNORECASE)

_NO_CLAIM = re.compile(
    r"\b(?:no|not|none|neither|nor|never|without|absent|absence|negative|excluded|free|unlikely|or)\b"
)
"""What keeps the words beside it from being a claim."""

_WHERE = re.compile(r"(?:(?:on|in|at) )?(?:which|where|what side)\b")
_SPARED = re.compile(r"\b(?:normal|clear|unremarkable|spared|unaffected)\b")
"""What is like that is not what "which" or "where" asks for."""


def normalise_answer(text: str, *, question: str = "", baseline: str = "") -> str:
    """Bring an answer to the form in which answers are compared.

    Parameters
    ----------
    text : str
        An answer as it was given.
    question, baseline : str, optional
        What was asked, and what that is a variant of. To a question for yes or no "There is a small effusion." is a
        yes; to another one such words are the answer. Where nothing is given, only what says no more is a yes.

    Returns
    -------
    str
        ``yes``, ``no`` or ``unknown``; else the words in lower case, without punctuation and articles. Empty when there
        are none.
    """
    asked = [wording for wording in (question, baseline) if wording.strip()]
    return _normalised(text, asked, closed=any(map(asks_yes_or_no, asked)) if asked else None)


def same_answer(one: str, other: str, *, question: str = "", baseline: str = "") -> bool:
    """Whether two answers say the same, by `normalise_answer`."""
    first, second = (normalise_answer(text, question=question, baseline=baseline) for text in (one, other))
    return first == second


def is_correct(answer: str, truth: str, *, question: str = "", baseline: str = "") -> bool | None:
    """Whether an answer is right.

    Where the truth is yes, no or unknown, the answer has to say that. Otherwise both have to be the same words, but for
    those of the question, or the truth's words stand together in a clause of the answer that neither negates nor leaves
    a choice; each in the singular or plural.

    Parameters
    ----------
    answer, truth : str
        As they were given.
    question, baseline : str, optional
        As for `normalise_answer`.

    Returns
    -------
    bool or None
        None where there is no truth.
    """
    right = normalise_answer(truth, question=question, baseline=baseline)
    if not right:
        return None
    asked = [wording for wording in (question, baseline) if wording.strip()]
    if right in {YES, NO, UNKNOWN}:
        return _normalised(answer, asked, closed=True) == right
    right = singular(plain_words(truth))
    if singular(plain_words(answer)) == right or _same_but_for_the_question(answer, truth, asked):
        return True
    where = any(_WHERE.match(plain_words(question)) for question in asked)
    excluding = (_NO_CLAIM, _SPARED) if where else (_NO_CLAIM,)
    wanted = re.compile(rf"(?<!\S){re.escape(right)}(?!\S)")
    return any(
        wanted.search(clause) and not any(other.search(wanted.sub(" ", clause)) for other in excluding)
        for sentence in sentences(answer)
        for clause in map(singular, clauses(sentence))
    )


def _same_but_for_the_question(answer: str, truth: str, asked: list[str]) -> bool:
    """Whether both are the same but for words that the question has: "Left" and "left lung" to "Which lung?"."""
    repeated = {word for question in asked for word in singular(plain_words(question)).split()}
    if "or" in repeated:  # then its words are the choice
        return False
    answer, truth = (
        " ".join(word for word in singular(plain_words(text)).split() if word not in repeated)
        for text in (answer, truth)
    )
    return bool(truth) and answer == truth


def _normalised(text: str, asked: list[str], *, closed: bool | None) -> str:
    behind = _ANSWER.split(text)[-1]
    text = behind if plain_words(behind) else text
    words = plain_words(text)
    return OUTRIGHT.get(words) or polarity(text, asked, closed=closed) or words
