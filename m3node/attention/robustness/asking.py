"""Asks about an image and its changed ones: each is encoded once, for all questions about it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from m3node.attention.images.image import InputImage
from m3node.attention.output.record import finite
from m3node.attention.questions.answers import is_correct, normalise_answer
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked
from m3node.attention.robustness.record import Said
from m3node.attention.running import Looks
from m3node.errors import M3NodeError

NO_QUESTION = "the row has no question"


def ask_all(looker: Looks, image: InputImage, questions: Sequence[Question]) -> list[Looked | str]:
    """Ask questions about one image.

    Returns
    -------
    list of Looked or str
        One a question; why it failed, where it did. One that cannot be asked keeps none of the others from it.
    """
    answers: list[Looked | str] = [NO_QUESTION] * len(questions)
    places = [place for place, question in enumerate(questions) if question.text]
    if not places:
        return answers
    try:
        features = looker.features(image)
    except M3NodeError as error:
        for place in places:
            answers[place] = str(error)
        return answers
    found = _together(looker, features, image, [questions[place].text for place in places])
    for place, answer in zip(places, found, strict=True):
        answers[place] = answer
    return answers


def said(question: Question, looked: Looked) -> Said:
    """Judge an answer."""
    asked = {"question": question.text, "baseline": question.baseline}
    return Said(
        answer=looked.answer,
        normalised=normalise_answer(looked.answer, **asked),
        correct=is_correct(looked.answer, question.truth, **asked),
        log_prob=finite(looked.log_prob),
        image_share=finite(looked.image_share),
        mode=looked.mode.value,
        passed_over=looked.passed_over,
        degenerate=looked.degenerate,
    )


def flipped(original: Said, baseline: Question, other: Said, variant: Question) -> bool:
    """Whether two answers contradict each other, given what the table says is right for each question."""
    truths = [normalise_answer(q.truth, question=q.text, baseline=q.baseline) for q in (baseline, variant)]
    alike = not all(truths) or truths[0] == truths[1]
    return (original.normalised == other.normalised) is not alike


def comparable(original: Said, other: Said) -> bool:
    """Whether two grids are of one make, and both say something."""
    return original.mode == other.mode and not original.degenerate and not other.degenerate


def _together(looker: Looks, features: torch.Tensor, image: InputImage, texts: Sequence[str]) -> list[Looked | str]:
    try:
        return [*looker.ask(features, image, texts)]
    except M3NodeError as error:
        if len(texts) == 1:
            return [str(error)]
        # One question that cannot be asked fails all that go with it.
        return [answer for text in texts for answer in _together(looker, features, image, [text])]
