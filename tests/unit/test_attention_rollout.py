"""Rollout is the product of all layers' mean attention, and never more than some rows of one layer at a time."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.questions.terms import TermList
from m3node.attention.reading import looker
from m3node.attention.reading.looker import Looker
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.errors import InferenceError
from m3node.gemma import rollout
from m3node.gemma.generation import Answer, generate
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.reading import image_span, read_answers
from m3node.gemma.rollout import read_rollout
from m3node.gemma.wording import worded
from tests.eager_attention import eager_copy, eager_pass, sharpened
from tests.small_gemma import small_gemma

ROWS = (0, 2, 3)
QUESTION = "Is there an effusion, and if so on which side? " * 8
HEADS, SIDE, LAYERS = 8, 8, 6


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    return sharpened(
        small_gemma(image=112, tokens=SIDE, heads=HEADS, key_heads=4, window=60, layers=LAYERS, global_every=3, seed=3)
    )


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return 4.0 * torch.randn(SIDE**2, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def prompt(model: GemmaModel) -> list[int]:
    """Longer than the image by far."""
    return prompt_ids(model, QUESTION)


@pytest.fixture(scope="module")
def answer(model: GemmaModel, prompt: list[int], features: torch.Tensor) -> Answer:
    (answer,) = generate(model, [prompt], features[None], max_new_tokens=5)
    assert len(answer.token_ids) == 5
    return answer


def test_it_is_the_product_over_all_layers(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer
) -> None:
    product = torch.eye(len(prompt) + 5)
    for attention in eager_pass(eager_copy(model), [*prompt, *answer.token_ids], features).stacked:
        product = (0.5 * attention.mean(dim=0) + 0.5 * torch.eye(len(product))) @ product
    first, last = image_span(model, prompt)
    expected = product[[len(prompt) - 1 + row for row in ROWS], first:last].unflatten(-1, (SIDE, SIDE)).numpy()
    found = read_rollout(model, prompt, features, answer, ROWS)
    assert (expected > 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0)


def test_the_grid_is_the_mean_over_the_read_tokens(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looker, "what_is_wrong", lambda _grid: "")  # of random weights it is flat
    rows = worded(model, answer).tokens[:3]
    assert len(rows) == 3
    plan = ReadingPlan(Mode.ROLLOUT, (2,), (1.0,), answer_tokens=3, max_new_tokens=5)
    image = InputImage(path=Path("any.png"), rgb=np.zeros((8, 8, 3), dtype=np.uint8), kind=ImageKind.OTHER)
    (looked,) = Looker(model, plan, TermList(())).ask(features, image, [QUESTION])
    expected = read_rollout(model, prompt, features, answer, rows).mean(axis=0)
    assert looked.mode is Mode.ROLLOUT
    np.testing.assert_allclose(looked.grid, expected / expected.sum(), rtol=1e-5)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor of floating-point numbers that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                self.numbers = max(self.numbers, one.numel())
        return made


def test_no_mode_holds_one_layers_whole_attention(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer
) -> None:
    tokens = len(prompt) + 4
    of_a_layer = HEADS * tokens**2
    assert tokens > 400
    with _Largest() as rolled:
        read_rollout(model, prompt, features, answer, ROWS)
    with _Largest() as read:
        read_answers(model, [prompt], features[None], [answer], [ROWS], range(LAYERS), "all", words=[[1, 2]])
    with _Largest() as eager:
        eager_pass(eager_copy(model), [*prompt, *answer.token_ids], features)
    assert eager.numbers >= of_a_layer  # what it would be
    assert rolled.numbers <= HEADS * 64 * tokens < of_a_layer / 5
    assert read.numbers < of_a_layer / 5


def test_layers_that_did_not_come_are_an_error(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataclasses.replace(model, network=copy.deepcopy(model.network))
    plain.network.set_attn_implementation("sdpa")
    monkeypatch.setattr(rollout, "make_readable", lambda _model: None)
    with pytest.raises(InferenceError, match="in 0 of 6 layers"):
        read_rollout(plain, prompt, features, answer, ROWS)


def test_layers_that_come_out_of_order_are_an_error() -> None:
    rows = rollout.RolloutRows(4, (1, 3), torch.device("cpu"))
    state = torch.zeros(1, 1, 4, 2)
    rows.take(0, state, state, None, 1.0)
    with pytest.raises(InferenceError, match="layer 2 came where layer 1 was due"):
        rows.take(2, state, state, None, 1.0)
    torch.testing.assert_close(rows.result(1)[0], torch.zeros(2))  # the first token saw nothing of the image
