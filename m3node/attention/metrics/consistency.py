"""Whether the variants of one question about one image get one answer and one look; and which wordings do worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from m3node.attention.metrics.divergence import jensen_shannon
from m3node.attention.questions.answers import normalise_answer
from m3node.attention.questions.question import Question
from m3node.attention.reading.plan import Mode

BASELINE_STRATEGY = "baseline"
"""How the baseline question was made, where the table does not say."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What consistency needs to know of a question that was answered; one that failed is none.

    Attributes
    ----------
    question : Question
        What was asked.
    answer : str
        As it was given.
    correct : bool or None
        Whether it is right; None without a truth.
    grid : ndarray of float, shape (cells down, cells across)
        Over the same area for every question about one image.
    mode : Mode
        What the grid was made by.
    degenerate : bool
        It says nothing, and is compared with none.
    """

    question: Question
    answer: str
    correct: bool | None
    grid: npt.NDArray[np.floating]
    mode: Mode
    degenerate: bool = False

    @property
    def said(self) -> str:
        """The answer as answers are compared."""
        return normalise_answer(self.answer, question=self.question.text, baseline=self.question.baseline)

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline question: by its words, as some tables number their variants from 0."""
        return self.question.text == self.question.baseline

    @property
    def strategy(self) -> str:
        """How the variant was made; `BASELINE_STRATEGY` for the baseline where the table does not say."""
        return self.question.strategy or (BASELINE_STRATEGY if self.is_baseline else "")


@dataclass(frozen=True, slots=True)
class GroupConsistency:
    """The variants of one baseline question about one image, the baseline among them.

    Attributes
    ----------
    study_id, dicom_id, baseline : str
        Which.
    variants : int
        How many were answered.
    answers : tuple of str
        The different ones, normalised, in the order in which they came.
    consistent : bool or None
        Whether there is one answer only; None with fewer than two variants.
    correct, judged : int
        How many answers are right, of how many with a truth.
    divergence : float or None
        Mean Jensen–Shannon divergence, base 2, over all pairs of grids that can be compared; None without a pair.
    pairs : int
        How many those are. Grids of different modes, and degenerate ones, are not compared.
    """

    study_id: str
    dicom_id: str
    baseline: str
    variants: int
    answers: tuple[str, ...]
    consistent: bool | None
    correct: int
    judged: int
    divergence: float | None
    pairs: int


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """What came of the questions that were worded in one way.

    Attributes
    ----------
    strategy : str
        As `Answered.strategy`.
    questions : int
        How many were answered.
    correct, judged : int
        How many answers are right, of how many with a truth.
    agreeing, compared : int
        How many answers are the baseline's, of how many whose baseline was answered; the baseline is not among them.
    divergence : float or None
        Mean Jensen–Shannon divergence, base 2, from the baseline's grid; None without a pair that can be compared.
    pairs : int
        How many those are.
    """

    strategy: str
    questions: int
    correct: int
    judged: int
    agreeing: int
    compared: int
    divergence: float | None
    pairs: int

    @property
    def accuracy(self) -> float | None:
        """Right answers among those with a truth."""
        return self.correct / self.judged if self.judged else None

    @property
    def agreement(self) -> float | None:
        """Answers that are the baseline's, among those whose baseline was answered."""
        return self.agreeing / self.compared if self.compared else None


def consistency(rows: Iterable[Answered]) -> list[GroupConsistency]:
    """Compare the variants of each baseline question about each image, groups in the order of their first row."""
    return [_of_group(group) for group in _groups(rows)]


def by_strategy(rows: Iterable[Answered]) -> list[StrategyResult]:
    """Compare ways of wording, the baseline first, then by name."""
    found: dict[str, list[tuple[Answered, Answered | None]]] = {}
    for group in _groups(rows):
        baseline = next((row for row in group if row.is_baseline), None)
        for row in group:
            found.setdefault(row.strategy, []).append((row, None if row is baseline else baseline))
    order = sorted(found, key=lambda strategy: (strategy != BASELINE_STRATEGY, strategy))
    return [_of_strategy(strategy, found[strategy]) for strategy in order]


def _groups(rows: Iterable[Answered]) -> list[list[Answered]]:
    found: dict[tuple[str, str, str], list[Answered]] = {}
    for row in rows:
        found.setdefault(row.question.group, []).append(row)
    return list(found.values())


def _of_group(group: Sequence[Answered]) -> GroupConsistency:
    said = tuple(dict.fromkeys(row.said for row in group))
    apart = _divergences(combinations(group, 2))
    study_id, dicom_id, baseline = group[0].question.group
    return GroupConsistency(
        study_id=study_id,
        dicom_id=dicom_id,
        baseline=baseline,
        variants=len(group),
        answers=said,
        consistent=len(said) == 1 if len(group) > 1 else None,
        correct=sum(row.correct is True for row in group),
        judged=sum(row.correct is not None for row in group),
        divergence=_mean(apart),
        pairs=len(apart),
    )


def _of_strategy(strategy: str, rows: Sequence[tuple[Answered, Answered | None]]) -> StrategyResult:
    pairs = [(row, baseline) for row, baseline in rows if baseline is not None]
    apart = _divergences(pairs)
    return StrategyResult(
        strategy=strategy,
        questions=len(rows),
        correct=sum(row.correct is True for row, _ in rows),
        judged=sum(row.correct is not None for row, _ in rows),
        agreeing=sum(row.said == baseline.said for row, baseline in pairs),
        compared=len(pairs),
        divergence=_mean(apart),
        pairs=len(apart),
    )


def _divergences(pairs: Iterable[tuple[Answered, Answered]]) -> list[float]:
    """Of grids that say something, and were made in the same way: what lies between two modes is not the wording."""
    return [
        jensen_shannon(one.grid, other.grid)
        for one, other in pairs
        if one.mode is other.mode and not one.degenerate and not other.degenerate
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
