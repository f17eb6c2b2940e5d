"""What the test model is taught to say: boxes as text, and how wrong a number near the right one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3node.evaluation.test_model.network import BOX, CLOSING, COMMA, LABEL, OPENING
from m3node.gemma.images import UNITS, Edges

STEP = 5
"""Taught coordinates are multiples of this: a pixel of the model's image is 4.5 units, finer is guesswork."""

NUMBERS = np.arange(0, int(UNITS) + 1, STEP)

DECISION_WEIGHT = 3.0
"""Weight of a token that says whether there is another box, against a digit's."""

_WORDS = [str(number) for number in NUMBERS]
_DIGITS = "0123456789"


@dataclass(frozen=True, slots=True, eq=False)
class TaughtAnswer:
    """An answer and its targets.

    Attributes
    ----------
    ids : ndarray of int64, shape (tokens,)
        The answer's tokens with the end of the turn.
    targets : ndarray of float32, shape (tokens, vocabulary)
        Probability that each token should have had, given the true ones before it; rows sum to 1.
    weights : ndarray of float32, shape (tokens,)
        What an error costs.
    """

    ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


def in_order(boxes: Sequence[Edges]) -> list[Edges]:
    """Sort boxes as answers name them: from the top, then from the left."""
    return sorted(boxes)


def closeness(value: float, sigma: float) -> npt.NDArray[np.float64]:
    """Weigh each of `NUMBERS` by a Gaussian around the exact coordinate; sums to 1."""
    weights = np.exp(-0.5 * ((NUMBERS - value) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


class Teacher:
    """Spells answers with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        def one(text: str) -> int:
            (number,) = tokenizer(text, add_special_tokens=False)["input_ids"]
            return int(number)

        self._size = len(tokenizer)
        self._digits = [one(digit) for digit in _DIGITS]
        self._opening, self._box, self._comma, self._label, self._closing = (
            one(text) for text in (OPENING, BOX, COMMA, LABEL, CLOSING)
        )
        self._end = int(tokenizer.convert_tokens_to_ids("<end_of_turn>"))
        self._followers = _followers()

    def answer(self, boxes: Sequence[Edges], sigma: float) -> TaughtAnswer:
        """Spell the answer that names these boxes (``y0, x0, y1, x1``, 0…1000, any fractions).

        Numbers are spelled rounded to `STEP`; their targets are Gaussians around the exact value, turned into
        next-token targets: a digit's is the weight of all numbers that go on with it.
        """
        ids: list[int] = []
        rows: list[npt.NDArray[np.float32]] = []
        weights: list[float] = []

        def say(token: int, row: npt.NDArray[np.float32] | None = None, weight: float = 1.0) -> None:
            ids.append(token)
            rows.append(self._certain(token) if row is None else row)
            weights.append(weight)

        say(self._opening)
        for number, box in enumerate(in_order(boxes)):
            if number:
                say(self._comma, weight=DECISION_WEIGHT)
                say(self._box)
            else:
                say(self._box, weight=DECISION_WEIGHT)
            for position, value in enumerate(box):
                stop = self._comma if position < 3 else self._label
                for token, row in self._spelled(value, stop, sigma):
                    say(token, row)
        say(self._closing, weight=DECISION_WEIGHT)
        say(self._end)
        return TaughtAnswer(
            ids=np.asarray(ids, dtype=np.int64),
            targets=np.stack(rows),
            weights=np.asarray(weights, dtype=np.float32),
        )

    def _certain(self, token: int) -> npt.NDArray[np.float32]:
        row = np.zeros(self._size, dtype=np.float32)
        row[token] = 1.0
        return row

    def _spelled(self, value: float, stop: int, sigma: float) -> list[tuple[int, npt.NDArray[np.float32]]]:
        """The tokens of the number nearest to a value and the stop after it, each with its target."""
        return self.along(int(STEP * np.clip(round(value / STEP), 0, NUMBERS.size - 1)), closeness(value, sigma), stop)

    def along(
        self, number: int, weights: npt.NDArray[np.float64], stop: int
    ) -> list[tuple[int, npt.NDArray[np.float32]]]:
        """Follow a number's digits through a distribution over `NUMBERS`.

        Parameters
        ----------
        number : int
            One of `NUMBERS`.
        weights : ndarray of float, one for each of `NUMBERS`
            Their probabilities.
        stop : int
            Token after the last digit.

        Returns
        -------
        list of (token, target)
            Its digits and the stop, each with the distribution of the token that stands there, given those before it.
        """
        word, tokens = str(number), [*self._digits, stop]
        spelled: list[tuple[int, npt.NDArray[np.float32]]] = []
        for length in range(len(word) + 1):
            shares = self._followers[word[:length]] @ weights
            row = np.zeros(self._size, dtype=np.float32)
            row[tokens] = shares / shares.sum()
            spelled.append((self._digits[int(word[length])] if length < len(word) else stop, row))
        return spelled


def _followers() -> dict[str, npt.NDArray[np.float64]]:
    """For each prefix, which of `NUMBERS` goes on with which digit, or stops: shape (11, numbers)."""
    table: dict[str, npt.NDArray[np.float64]] = {}
    for column, word in enumerate(_WORDS):
        for length in range(len(word) + 1):
            rows = table.setdefault(word[:length], np.zeros((len(_DIGITS) + 1, NUMBERS.size)))
            rows[int(word[length]) if length < len(word) else len(_DIGITS), column] = 1.0
    return table
