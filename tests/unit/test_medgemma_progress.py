"""While a batch is answered, the detector tells how many of its answers have ended, and can be stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.detectors.protocols import TellsAnswered
from m3node.gemma import generation
from m3node.gemma.generation import generate
from m3node.gemma.prompts import prompt_ids
from m3node.settings import MedGemmaSettings
from tests.asking import EMPTY, REGION, VOLUME, make_view, random_model, script

VIEWS = [make_view(number) for number in range(5)]
NEW = 30


class Enough(BaseException):
    """A person does not want to know any more."""


def detector_of(batch_views: int) -> MedGemmaDetector:
    return MedGemmaDetector(random_model(), MedGemmaSettings(batch_views=batch_views, max_new_tokens=2))


def test_it_tells_of_answers_that_have_ended_and_of_passes_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, EMPTY)
    detector = detector_of(3)
    assert isinstance(detector, TellsAnswered)
    detector.keep_attention = True
    told: list[int] = []
    given = [len(told) for _ in detector.look_telling(VIEWS, VOLUME, REGION, told.append)]
    # Each batch: encoded, answered one after the other, read back; only then come its results.
    assert told[:9] == [0, 0, 0, 1, 2, 3, 3, 3, 3]
    assert told[9:] == [3, 3, 4, 5, 5, 5]
    assert given == [9, 9, 9, 15, 15]


def test_what_is_told_after_memory_ran_out_counts_the_answers_before(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = script(monkeypatch, EMPTY)

    def bounded(model: Any, prompts: Any, features: Any, **named: Any) -> Any:
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(model, prompts, features, **named)

    monkeypatch.setattr(module, "generate", bounded)
    told: list[int] = []
    assert len(list(detector_of(5).look_telling(VIEWS, VOLUME, REGION, told.append))) == 5
    assert told == [0] * 5 + [1, 2, 3, 4, 5]


@pytest.mark.parametrize("calls", [1, 6, 7], ids=["while encoding", "at the first answer", "at the second"])
def test_who_is_told_can_end_the_work_at_once(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(monkeypatch, EMPTY).asked
    told: list[int] = []

    def enough(answered: int) -> None:
        told.append(answered)
        if len(told) == calls:
            raise Enough

    with pytest.raises(Enough):
        next(detector_of(5).look_telling(VIEWS, VOLUME, REGION, enough))
    assert len(told) == calls
    assert len(asked) == max(0, calls - 5)


@pytest.mark.parametrize("look_every", [1, 4])
def test_a_batch_tells_as_it_goes_how_many_of_its_answers_have_ended(
    look_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, told = random_model(), list[int]()
    monkeypatch.setitem(generation._LOOK_EVERY, "cpu", look_every)
    answers = ended_at_random(monkeypatch, model, told.append)
    ends = sorted(len(answer.token_ids) for answer in answers if answer.ended)
    assert 2 <= len(set(ends)) < len(answers)  # at different places, and one of them never
    looks = range(look_every, NEW, look_every)
    assert told == [sum(end < look for end in ends) for look in looks]


def ended_at_random(monkeypatch: pytest.MonkeyPatch, model: Any, ended: Callable[[int], None]) -> Any:
    """Have answers of random words end at some word that some of them say."""
    generator = torch.Generator().manual_seed(7)
    count = 8
    prompts = [prompt_ids(model, "Where?")] * count
    features = 6.0 * torch.randn(count, model.sizes.tokens**2, 48, generator=generator)
    free = generate(model, prompts, features, max_new_tokens=NEW)
    last = {answer.token_ids[-1] for answer in free[:5]} - {answer.token_ids[0] for answer in free}
    monkeypatch.setattr(generation, "end_tokens", lambda _model: frozenset(last))
    return generate(model, prompts, features, max_new_tokens=NEW, ended=ended)


def test_prompts_of_other_lengths_are_told_on_top_of_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model, told = random_model(), list[int]()
    prompts = [prompt_ids(model, "Where?" + "x" * more) for more in (0, 200, 0)]
    features = torch.zeros(3, model.sizes.tokens**2, 48)
    monkeypatch.setattr(generation, "end_tokens", lambda _model: frozenset(range(len(model.tokenizer))))
    generate(model, prompts, features, max_new_tokens=NEW, ended=told.append)
    assert told == [2, 3]
