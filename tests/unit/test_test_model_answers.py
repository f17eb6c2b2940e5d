"""What the test model is taught: answers that the parser reads, and targets that are a Gaussian told digit by digit."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="the extra medgemma is not installed")

from m3node.detectors.medgemma.answer import parse
from m3node.evaluation.test_model.answers import NUMBERS, STEP, TaughtAnswer, Teacher, closeness
from m3node.evaluation.test_model.network import COMMA, GLUE, new_model
from m3node.gemma.images import Edges
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids

SIGMA = 8.0


@functools.cache
def model() -> GemmaModel:
    return new_model(0)


@functools.cache
def teacher() -> Teacher:
    return Teacher(model().tokenizer)


def tokens() -> Any:
    return model().tokenizer


def text_of(answer: TaughtAnswer) -> str:
    return str(tokens().decode(answer.ids[:-1], skip_special_tokens=False))


@st.composite
def boxes(draw: st.DrawFn) -> Edges:
    y0, y1, x0, x1 = (draw(st.floats(0.0, 1000.0)) for _ in range(4))
    return min(y0, y1), min(x0, x1), max(y0, y1), max(x0, x1)


@settings(deadline=None, max_examples=50)
@given(st.lists(boxes(), max_size=3))
def test_a_taught_answer_is_read_back_as_its_boxes_from_the_top_to_the_nearest_5(lesions: list[Edges]) -> None:
    answer = teacher().answer(lesions, SIGMA)
    parsed = parse(text_of(answer), ended=True)
    assert parsed.failure == ""
    assert [(b.y0, b.x0, b.y1, b.x1) for b in parsed.boxes] == [
        tuple(STEP * round(value / STEP) for value in box) for box in sorted(lesions)
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(boxes(), max_size=3))
def test_targets_are_probabilities_and_the_spelled_token_is_never_impossible(lesions: list[Edges]) -> None:
    answer = teacher().answer(lesions, SIGMA)
    assert answer.targets.shape == (len(answer.ids), len(tokens()))
    assert np.all(answer.targets >= 0)
    assert np.allclose(answer.targets.sum(axis=1), 1.0, atol=1e-5)
    assert np.all(answer.targets[np.arange(len(answer.ids)), answer.ids] > 1e-3)
    # What says whether there is another box counts three times a digit: once before each box, and before the end.
    assert sorted(answer.weights.tolist(), reverse=True)[: len(lesions) + 2] == [3.0] * (len(lesions) + 1) + [1.0]
    assert answer.weights.min() == 1.0


@pytest.mark.parametrize("value", [0.0, 3.2, 47.5, 100.0, 398.7, 402.4, 995.1, 1000.0])
def test_following_the_targets_draws_each_number_as_often_as_its_gaussian_says(value: float) -> None:
    """The chain rule: the product of next-token targets along a number's own digits is that number's probability."""
    weights = closeness(value, SIGMA)
    stop = tokens().convert_tokens_to_ids(COMMA)
    gaussian = np.exp(-((NUMBERS - value) ** 2) / (2 * SIGMA**2))
    for number, expected in zip(NUMBERS.tolist(), (gaussian / gaussian.sum()).tolist(), strict=True):
        if expected < 1e-9:
            continue
        along = teacher().along(number, weights, stop)
        assert [token for token, _ in along] == [*tokens()(str(number))["input_ids"], stop]
        assert math.prod(float(row[token]) for token, row in along) == pytest.approx(expected, rel=1e-4)


def test_numbers_are_single_digits_and_what_stands_between_them_single_tokens() -> None:
    assert [len(tokens()(digit)["input_ids"]) for digit in "0123456789"] == [1] * 10
    assert len(tokens()("1000")["input_ids"]) == 4
    assert [len(tokens()(text)["input_ids"]) for text in GLUE] == [1] * len(GLUE)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    assert tokens().decode(tokens()(text)["input_ids"], skip_special_tokens=False) == text


def test_special_tokens_are_one_token_each_and_the_prompt_ends_where_the_answer_begins() -> None:
    ids = prompt_ids(model(), model().profile.crop_prompt)
    words = tokens().convert_ids_to_tokens(ids)
    assert words[:2] == ["<bos>", "<start_of_turn>"]
    assert words.count("<image>") == 64
    assert tokens().decode(ids[-7:]) == "<start_of_turn>model\n"
    assert len(ids) < 100
