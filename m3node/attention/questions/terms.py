"""Medical terms, and where they stand in a question.

What is found are places in the text, in characters. Which of the model's tokens they are is a matter of the tokens'
own places in that text: pieces of words are no words, and are never compared with terms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import pairwise
from pathlib import Path

from m3node.errors import ConfigError

Span = tuple[int, int]
"""First character, and the one after the last."""

_WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+")
"""Letters and digits, with accents that stand by themselves."""

_WITHIN = re.compile(r"[\s'’\-\u2010-\u2015]+")
"""What may stand between the words of one term: a space or a hyphen, whichever the list has."""

_Words = tuple[str, ...]


@dataclass(frozen=True)
class TermList:
    """Terms of one word or several, in any case.

    Attributes
    ----------
    terms : tuple of str
        As they were written.
    """

    terms: tuple[str, ...]

    @cached_property
    def _known(self) -> frozenset[_Words]:
        return frozenset(words for term in self.terms if (words := tuple(word for word, _ in _words(term))))

    @cached_property
    def _longest(self) -> int:
        return max((len(words) for words in self._known), default=0)

    def spans(self, text: str) -> list[Span]:
        """Find the terms in a text: whole words, singular or plural, the longest first, none over another.

        Parameters
        ----------
        text : str
            A question.

        Returns
        -------
        list of tuple of int
            From left to right, ``text[first:last]`` is a term as the text has it.
        """
        words = _words(text)
        found: list[tuple[int, int]] = []  # of words
        for first in range(len(words)):
            for last in range(first + 1, min(first + self._longest, len(words)) + 1):
                if self._joined(text, words[first:last]) and self._is_term([word for word, _ in words[first:last]]):
                    found.append((first, last))
        found.sort(key=lambda span: (span[0] - span[1], span[0]))
        taken: set[int] = set()
        spans = []
        for first, last in found:
            if taken.isdisjoint(range(first, last)):
                taken.update(range(first, last))
                spans.append((words[first][1][0], words[last - 1][1][1]))
        return sorted(spans)

    @staticmethod
    def _joined(text: str, words: list[tuple[str, Span]]) -> bool:
        return all(_WITHIN.fullmatch(text, left[1], right[0]) for (_, left), (_, right) in pairwise(words))

    def _is_term(self, words: list[str]) -> bool:
        *before, last = words
        return any((*before, form) in self._known for form in _singulars(last))


def load_terms(path: Path | None = None) -> TermList:
    """Read a list of terms: one a line, ``#`` begins a comment.

    Parameters
    ----------
    path : Path, optional
        A file in UTF-8 that stands in for the package's own list (``terms.txt`` beside this module).

    Raises
    ------
    ConfigError
        It cannot be read, or holds no term.
    """
    if path is None:
        text = resources.files(__package__).joinpath("terms.txt").read_text(encoding="utf-8")
        return TermList(tuple(_lines(text)))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"the list of terms {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the list of terms {path} is not UTF-8") from error
    terms = TermList(tuple(_lines(text)))
    if not any(_words(term) for term in terms.terms):
        raise ConfigError(f"the list of terms {path} holds no term; it needs one a line")
    return terms


def _lines(text: str) -> Iterable[str]:
    stripped = (line.split("#", maxsplit=1)[0].strip() for line in text.splitlines())
    return dict.fromkeys(line for line in stripped if line)


def _words(text: str) -> list[tuple[str, Span]]:
    """The words of a text, in one form whatever their case and accents are made of, and where they stand."""
    return [(unicodedata.normalize("NFKC", found[0]).casefold(), found.span()) for found in _WORD.finditer(text)]


def _singulars(word: str) -> list[str]:
    """The word, and what it may be the plural of."""
    forms = [word]
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    return forms
