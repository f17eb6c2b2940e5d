"""Attention is kept when asked for, and is what the model paid while it wrote."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.detectors.protocols import Box2D, KeepsAttention
from m3node.gemma.images import SquareFrame
from m3node.gemma.reading import read_answers
from m3node.settings import MedGemmaSettings
from tests.asking import EMPTY, look, make_view, random_model, script, written


@pytest.fixture
def read_back(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is asked of each pass that reads answers back, as they come."""
    passes: list[tuple[Any, ...]] = []

    def noted(*arguments: Any) -> Any:
        passes.append(arguments)
        return read_answers(*arguments)

    monkeypatch.setattr(module, "read_answers", noted)
    return passes


def keeping(settings: MedGemmaSettings = MedGemmaSettings()) -> MedGemmaDetector:  # noqa: B008 - frozen
    detector = MedGemmaDetector(random_model(), settings)
    detector.keep_attention = True
    return detector


def test_nothing_is_read_back_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, read_back: list[tuple[Any, ...]]
) -> None:
    detector = MedGemmaDetector(random_model(), MedGemmaSettings())
    assert isinstance(detector, KeepsAttention)
    assert detector.keep_attention is False
    script(monkeypatch, written((250, 100, 500, 600)))
    (result,) = look(detector, [make_view()])
    assert (result.attention, result.boxes[0].attention, read_back) == (None, None, [])


def test_attention_is_that_of_the_words_that_were_said(
    monkeypatch: pytest.MonkeyPatch, read_back: list[tuple[Any, ...]]
) -> None:
    # Another answer before, so that a view's number is not the number of what is read back of it.
    texts = ["no list", written((250, 100, 500, 600), (300, 300, 400, 500)), EMPTY]
    script(monkeypatch, *texts)
    failed, found, empty = look(keeping(), [make_view(0), make_view(1), make_view(2)])

    model = random_model()
    ((_, prompts, features, answers, rows, layers),) = read_back
    assert layers == model.sizes.global_layers
    assert len(answers) == 2  # what could not be read is not read back
    assert [list(row) for row in rows] == [list(range(len(text))) for text in texts[1:]]
    readings = read_answers(model, prompts, features, answers, rows, layers)
    area = Box2D(*SquareFrame.of((40, 60), (0.8, 0.8)).area)
    for result, one in zip((found, empty), readings, strict=True):
        assert result.attention is not None
        assert result.attention.area == area
        assert one.attention is not None
        np.testing.assert_allclose(result.attention.values, one.attention.mean(axis=0), atol=1e-6)
        assert 0 < result.attention.values.sum() <= 1
    assert (failed.attention, failed.boxes) == (None, ())
    attention = readings[0].attention
    assert attention is not None
    assert len(found.boxes) == 2
    for box, start in zip(found.boxes, (texts[1].index("[250"), texts[1].index("[300")), strict=True):
        digits = [at for at in range(start, texts[1].index("]", start)) if texts[1][at].isdigit()]
        assert box.attention is not None
        assert box.attention.area == area
        np.testing.assert_allclose(box.attention.values, attention[digits].mean(axis=0), atol=1e-6)


def test_each_view_is_read_back_with_its_own_features(
    monkeypatch: pytest.MonkeyPatch, read_back: list[tuple[Any, ...]]
) -> None:
    script(monkeypatch, "no list", EMPTY, EMPTY)
    views = [make_view(number) for number in range(3)]
    look(keeping(), views)
    script(monkeypatch, EMPTY)
    look(keeping(), views[1:])
    ((_, _, some, *_), (_, _, alone, *_)) = read_back
    # A batch of another size rounds otherwise.
    np.testing.assert_allclose(some.numpy(), alone.numpy(), atol=1e-5)
    assert not np.allclose(some[0].numpy(), some[1].numpy(), atol=1e-3)


def test_thinking_is_not_read_back_as_answer(monkeypatch: pytest.MonkeyPatch, read_back: list[tuple[Any, ...]]) -> None:
    model = random_model()
    thinker = dataclasses.replace(model, profile=dataclasses.replace(model.profile, thinking=("<think>", "</think>")))
    thought = "<think>where is it?</think>"
    script(monkeypatch, thought + EMPTY)
    detector = MedGemmaDetector(thinker, MedGemmaSettings())
    detector.keep_attention = True
    look(detector, [make_view()])
    ((*_, rows, _),) = read_back
    assert list(rows[0]) == list(range(len(thought), len(thought + EMPTY)))


def test_an_answer_that_holds_the_images_token_is_read_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "<image><image> Final Answer: [] <image>", EMPTY)
    for result in look(keeping(), [make_view(), make_view(1)]):
        assert result.failure == ""
        assert result.attention is not None
        assert 0 < result.attention.values.sum() <= 1


def test_an_answer_of_which_every_box_is_dropped_is_not_read_back(
    monkeypatch: pytest.MonkeyPatch, read_back: list[tuple[Any, ...]]
) -> None:
    script(monkeypatch, written((500, 500, 400, 600)), EMPTY)
    dropped, empty = look(keeping(), [make_view(), make_view(1)])
    assert dropped.attention is None
    assert empty.attention is not None
    assert [len(answers) for _, _, _, answers, *_ in read_back] == [1]


def test_the_layers_are_those_of_the_settings_or_the_profiles(
    monkeypatch: pytest.MonkeyPatch, read_back: list[tuple[Any, ...]]
) -> None:
    script(monkeypatch, EMPTY)
    model = random_model()
    profiled = dataclasses.replace(model, profile=dataclasses.replace(model.profile, read_layers=(3,)))
    for of, settings in (
        (model, MedGemmaSettings(attention_layers=(0, 2))),
        (profiled, MedGemmaSettings()),
        (profiled, MedGemmaSettings(attention_layers=(0, 2))),
    ):
        detector = MedGemmaDetector(of, settings)
        detector.keep_attention = True
        look(detector, [make_view()])
    assert [layers for *_, layers in read_back] == [(0, 2), (3,), (0, 2)]


def test_scores_do_not_depend_on_whether_attention_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = MedGemmaDetector(random_model(), MedGemmaSettings())
    scores = []
    for detector.keep_attention in (False, True):
        script(monkeypatch, written((250, 100, 500, 600)))
        scores.append(look(detector, [make_view()])[0].boxes[0].score)
    assert scores[0] == scores[1]
