"""Variants of one question about one image: one answer, one look; and which wordings do worse."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from m3node.attention.metrics.consistency import Answered, by_strategy, consistency
from m3node.attention.metrics.divergence import jensen_shannon
from m3node.attention.questions.question import Question
from m3node.attention.reading.plan import Mode

BASELINE = "Is there an effusion?"
LEFT, RIGHT, BOTH = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])
HALF_WAY = jensen_shannon(LEFT, BOTH)

lines = itertools.count(2)


def answered(index: int, answer: str, correct: bool | None = None, **also: object) -> Answered:
    """An answer about image d of study s, where nothing else is said."""
    question = Question(
        line=next(lines),
        dicom_id="d",
        study_id="s",
        text=BASELINE if index == 0 else f"Do you see an effusion, in words {index}?",
        baseline=BASELINE,
        variant_index=index,
    )
    named = {name: also.pop(name) for name in ("dicom_id", "study_id", "strategy", "baseline", "text") if name in also}
    values = {"grid": LEFT, "mode": Mode.GATED, **also}
    return Answered(question=replace(question, **named), answer=answer, correct=correct, **values)  # type: ignore[arg-type]


def test_variants_that_all_say_no_in_other_words_are_consistent() -> None:
    (group,) = consistency([answered(0, "No."), answered(1, "not present"), answered(2, "There is no effusion.")])
    assert group.consistent is True
    assert group.answers == ("no",)
    assert (group.study_id, group.dicom_id, group.baseline, group.variants) == ("s", "d", BASELINE, 3)


def test_letters_of_a_no_within_a_word_are_no_agreement() -> None:
    (group,) = consistency([answered(0, "No"), answered(1, "A known effusion is seen"), answered(2, "unknown")])
    assert group.consistent is False
    assert group.answers == ("no", "yes", "unknown")


def test_divergence_is_the_mean_over_all_pairs() -> None:
    rows = [answered(0, "no", grid=LEFT), answered(1, "no", grid=RIGHT), answered(2, "no", grid=BOTH)]
    (group,) = consistency(rows)
    assert group.pairs == 3
    assert group.divergence == pytest.approx((1 + 2 * HALF_WAY) / 3)


def test_grids_of_another_mode_or_that_say_nothing_are_not_compared() -> None:
    rows = [
        answered(0, "no", grid=LEFT),
        answered(1, "no", grid=RIGHT, mode=Mode.RAW),
        answered(2, "no", grid=BOTH),
        answered(3, "no", grid=RIGHT, degenerate=True),
    ]
    (group,) = consistency(rows)
    assert group.pairs == 1
    assert group.divergence == pytest.approx(HALF_WAY)


def test_one_variant_alone_is_neither_consistent_nor_not() -> None:
    (group,) = consistency([answered(0, "no", correct=True)])
    assert (group.consistent, group.divergence, group.pairs) == (None, None, 0)
    assert (group.correct, group.judged) == (1, 1)


def test_groups_are_those_of_one_study_image_and_baseline() -> None:
    rows = [
        answered(0, "no"),
        answered(0, "yes", dicom_id="e"),
        answered(0, "yes", study_id="t"),
        answered(0, "yes", baseline="Is there a nodule?", text="Is there a nodule?"),
        answered(1, "no"),
    ]
    groups = consistency(rows)
    assert [group.variants for group in groups] == [2, 1, 1, 1]
    assert groups[0].consistent is True


def test_strategies_are_compared_by_accuracy_agreement_and_divergence() -> None:
    rows = [
        answered(0, "no", correct=True, grid=LEFT),
        answered(1, "yes", correct=False, strategy="synonym", grid=RIGHT),
        answered(2, "not seen", correct=True, strategy="negation", grid=LEFT),
        answered(0, "yes", correct=None, dicom_id="e", grid=LEFT),
        answered(1, "yes", correct=None, dicom_id="e", strategy="synonym", grid=BOTH),
        answered(2, "no", correct=True, dicom_id="f", strategy="synonym", grid=BOTH),  # its baseline failed
    ]
    baseline, negation, synonym = by_strategy(rows)
    assert [found.strategy for found in (baseline, negation, synonym)] == ["baseline", "negation", "synonym"]
    assert (baseline.questions, baseline.accuracy, baseline.agreement, baseline.divergence) == (2, 1.0, None, None)
    assert (negation.accuracy, negation.agreement, negation.divergence) == (1.0, 1.0, 0.0)
    assert (synonym.questions, synonym.judged, synonym.accuracy) == (3, 2, 0.5)
    assert (synonym.compared, synonym.agreement) == (2, 0.5)
    assert synonym.pairs == 2
    assert synonym.divergence == pytest.approx((1 + HALF_WAY) / 2)


def test_a_variant_with_the_number_0_is_no_baseline() -> None:
    rows = [
        answered(0, "yes", strategy="synonym", text="Can you see an effusion?", grid=RIGHT),
        answered(1, "no", text=BASELINE),
    ]
    baseline, synonym = by_strategy(rows)
    assert (baseline.strategy, baseline.questions, baseline.compared) == ("baseline", 1, 0)
    assert (synonym.agreement, synonym.divergence) == (0.0, 1.0)


def test_nothing_answered_is_nothing_compared() -> None:
    assert consistency([]) == []
    assert by_strategy([]) == []


def test_a_strategy_without_truth_has_no_accuracy() -> None:
    (only,) = by_strategy([answered(3, "left", strategy="")])
    assert (only.strategy, only.accuracy, only.agreement) == ("", None, None)
