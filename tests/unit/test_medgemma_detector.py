"""The detector `medgemma`: from views to boxes, with answers that are written for it."""

from __future__ import annotations

import dataclasses
import logging
import math
import random
from collections.abc import Iterator

import pytest

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.detectors.medgemma.detector import NO_LESION_BOX
from m3node.detectors.protocols import Box2D, CropDetector, ScoreKind, View
from m3node.errors import InferenceError
from m3node.gemma.generation import Answer
from m3node.settings import MedGemmaSettings
from tests.asking import EMPTY, REGION, VOLUME, look, make_view, random_model, script, written


def made_detector() -> MedGemmaDetector:
    return MedGemmaDetector(random_model(), MedGemmaSettings())


def test_it_is_a_crop_detector_with_scores_of_tokens() -> None:
    detector = made_detector()
    assert isinstance(detector, CropDetector)
    assert detector.score_kind is ScoreKind.TOKEN_PROBABILITY


def test_a_written_box_lies_where_its_units_say(monkeypatch: pytest.MonkeyPatch) -> None:
    # A view of 40×60 pixels lies in a square of 60, with 10 rows of padding above and below.
    script(monkeypatch, written((250, 100, 500, 600)))
    (result,) = look(made_detector(), [make_view()])
    assert result.failure == ""
    (box,) = result.boxes
    assert box.box == Box2D(pytest.approx(5), pytest.approx(6), pytest.approx(20), pytest.approx(36))  # type: ignore[arg-type]
    assert (box.attention, result.attention, box.mask) == (None, None, None)
    assert result.raw_text == written((250, 100, 500, 600))


def test_the_score_is_that_of_the_coordinates_tokens_as_they_were_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written((300, 90, 500, 600))
    script(monkeypatch, text)
    (result,) = look(made_detector(), [make_view()])
    digits = [at for at, letter in enumerate(text) if letter.isdigit() and at > text.index("[", text.index("box_2d"))]
    assert len(digits) == 3 + 2 + 3 + 3
    expected = math.prod(1 / (2.0 + at) for at in digits) ** (1 / len(digits))
    assert result.boxes[0].score == pytest.approx(expected)


IMPLAUSIBLE = (500, 500, 400, 600)
IN_THE_PADDING = (0, 0, 160, 160)


def test_boxes_that_can_be_no_lesions_are_dropped_and_the_view_is_read_with_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kidney = written((700, 700, 800, 800), labels=["right kidney"])
    mixed = (
        written(IMPLAUSIBLE, (100, 100, 300, 300), IN_THE_PADDING).replace("]\n```", ", ") + kidney[kidney.index("{") :]
    )
    script(monkeypatch, mixed)
    (result,) = look(made_detector(), [make_view()])
    assert result.failure == ""
    (box,) = result.boxes
    assert (box.box.r0, box.box.r1) == (0.0, pytest.approx(8))


@pytest.mark.parametrize(
    "text",
    [
        written(IMPLAUSIBLE),
        written(IN_THE_PADDING),
        written((0, 0, 1000, 1000)),
        written((300, 300, 310, 310), IMPLAUSIBLE),
        written((300, 300, 500, 500), labels=["right kidney"]),
    ],
    ids=["out of order", "in the padding", "everything", "two", "a kidney"],
)
def test_a_view_of_which_every_box_is_dropped_is_unread_and_not_without_lesion(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script(monkeypatch, text, EMPTY)
    unread, empty = look(made_detector(), [make_view(), make_view(1)])
    assert (unread.boxes, unread.failure, unread.raw_text) == ((), NO_LESION_BOX, text)
    assert (empty.boxes, empty.failure) == ((), "")
    assert "1 of 2 answers could not be read: 1 × no box" in caplog.text


def test_a_box_that_is_denied_is_neither_a_box_nor_no_lesion(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, written((300, 300, 500, 500), labels=["no lesion"]))
    (result,) = look(made_detector(), [make_view()])
    assert (result.boxes, result.failure) == ((), "a box in the answer is labelled as none")


def test_what_cannot_be_read_is_a_failure_that_is_counted_and_logged_without_the_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script(
        monkeypatch, "DOE^JANE is well", (written((250, 100, 500, 600)), False), EMPTY, "[{DOE", "no lesion in JANE DOE"
    )
    caplog.set_level(logging.DEBUG)
    results = look(made_detector(), [make_view(number) for number in range(5)])
    assert [result.failure for result in results] == [
        "the answer holds no JSON list",
        "the answer reached the token limit",
        "",
        "the JSON in the answer is broken",
        "the answer holds no JSON list",
    ]
    assert all(result.boxes == () for result in results)
    assert "4 of 5 answers could not be read: 2 × the answer holds no JSON list; 1 × " in caplog.text
    assert "slice 1, padding 0.10: the answer reached the token limit" in caplog.text
    assert "DOE" not in caplog.text


def test_nothing_is_warned_of_when_every_answer_can_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script(monkeypatch, EMPTY)
    look(made_detector(), [make_view()])
    assert caplog.text == ""


def test_thinking_is_not_the_answer_and_unclosed_thinking_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model()
    thinker = dataclasses.replace(model, profile=dataclasses.replace(model.profile, thinking=("<think>", "</think>")))
    box = written((250, 100, 500, 600))
    script(monkeypatch, f"<think>{box}</think>{EMPTY}", f"<think>{box}", f"<think>[]</think>{box}")
    detector = MedGemmaDetector(thinker, MedGemmaSettings())
    results = look(detector, [make_view(number) for number in range(3)])
    assert [len(result.boxes) for result in results] == [0, 0, 1]
    assert [result.failure for result in results] == ["", "the thinking text was not closed", ""]


def test_views_are_taken_a_batch_at_a_time_and_answered_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, *(written((300, 300, 400 + 10 * number, 500)) for number in range(7)))
    taken: list[int] = []

    def views() -> Iterator[View]:
        for number in range(7):
            taken.append(number)
            yield make_view(number)

    results = MedGemmaDetector(random_model(), MedGemmaSettings(batch_views=3)).look(views(), VOLUME, REGION)
    heights = []
    for at, result in enumerate(results):
        assert len(taken) == min(7, 3 * (at // 3 + 1))
        heights.append(round((result.boxes[0].box.r1 - result.boxes[0].box.r0) / 60 * 1000))
    assert heights == [100 + 10 * number for number in range(7)]


def test_random_answers_give_no_exception_and_no_box_outside_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    pieces = [*'[]{},:"0123456789 \n', "```json", "```", written((100, 100, 300, 300)), EMPTY, "läsion", "肝"]
    said = [("".join(chance.choices(pieces, k=chance.randrange(1, 12))), chance.random() < 0.9) for _ in range(300)]
    script(monkeypatch, *said)
    results = look(made_detector(), [make_view(number) for number in range(300)])
    assert len(results) == 300
    assert any(result.boxes for result in results)
    assert any(result.failure for result in results)
    for result in results:
        assert not (result.boxes and result.failure)
        for box in result.boxes:
            assert 0 <= box.box.r0 < box.box.r1 <= 40
            assert 0 <= box.box.c0 < box.box.c1 <= 60
            assert 0 < box.score <= 1


def test_a_model_that_breaks_is_an_inference_error_without_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_named: object) -> list[Answer]:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(module, "generate", broken)
    with pytest.raises(InferenceError, match=r"the model failed: CUDA error: device-side assert triggered$"):
        look(made_detector(), [make_view()])
