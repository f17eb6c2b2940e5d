"""Grad-CAM of attention is what autograd finds on transformers' eager attention; only what it needs is in the graph."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.questions.terms import TermList
from m3node.attention.reading.looker import Looker
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.errors import InferenceError
from m3node.gemma import gradients
from m3node.gemma.generation import Answer, generate
from m3node.gemma.gradients import Relevance, read_relevance
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.reading import image_span
from m3node.gemma.wording import worded
from tests.eager_attention import eager_copy, eager_pass, sharpened
from tests.small_gemma import small_gemma

LAYERS, WEIGHTS = (1, 2, 3), (0.2, 0.3, 0.5)
ROWS = (0, 1, 2, 4)
QUESTION = "Is there an effusion?"


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    """Two windowed layers and two global ones; a part of the image lies in the window."""
    return sharpened(small_gemma(image=112, tokens=8, heads=8, key_heads=4, window=60, seed=3))


@pytest.fixture(scope="module")
def features(model: GemmaModel) -> torch.Tensor:
    return 4.0 * torch.randn(64, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def prompt(model: GemmaModel) -> list[int]:
    return prompt_ids(model, QUESTION)


@pytest.fixture(scope="module", params=["read on", "read anew"])
def answer(request: pytest.FixtureRequest, model: GemmaModel, prompt: list[int], features: torch.Tensor) -> Answer:
    """With what the model made of the prompt, and without."""
    (answer,) = generate(model, [prompt], features[None], max_new_tokens=6, keep_prompts=request.param == "read on")
    assert len(answer.token_ids) == 6
    return answer


@pytest.fixture(scope="module")
def found(model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer) -> Relevance:
    return read_relevance(model, prompt, features, answer, ROWS, LAYERS)


def test_it_is_attention_times_its_gradient_in_eager_attention(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer, found: Relevance
) -> None:
    eager = eager_pass(eager_copy(model), [*prompt, *answer.token_ids], features.clone().requires_grad_())
    queries = [len(prompt) - 1 + row for row in ROWS]
    target = sum(eager.log_probs[query, answer.token_ids[row]] for query, row in zip(queries, ROWS, strict=True))
    wanted = [eager.attentions[layer] for layer in LAYERS]
    slopes = torch.autograd.grad(target, wanted)
    products = torch.stack([(one * slope).relu()[0] for one, slope in zip(wanted, slopes, strict=True)]).detach()
    first, last = image_span(model, prompt)
    expected = products[:, :, queries, first:last].permute(2, 0, 1, 3).unflatten(-1, (8, 8)).numpy()
    assert found.image.shape == expected.shape == (4, 3, 8, 8, 8)
    assert (expected > 0).mean() > 0.2
    np.testing.assert_allclose(found.image, expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_rows_in_the_graph_change_no_probability(answer: Answer, found: Relevance) -> None:
    assert found.log_probs == pytest.approx([answer.log_probs[row] for row in ROWS], abs=1e-4)


@pytest.mark.parametrize("lowest", [0, 2, 3])
def test_the_graph_begins_at_the_lowest_layer(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer, lowest: int
) -> None:
    in_graph: list[bool] = []
    network: Any = model.network
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: in_graph.append(output.requires_grad))
        for layer in network.model.language_model.layers
    ]
    read_relevance(model, prompt, features, answer, ROWS, tuple(range(lowest, 4)))
    for hook in hooks:
        hook.remove()
    assert in_graph == [number >= lowest for number in range(4)]


def test_the_model_is_left_as_it_was(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer
) -> None:
    before = {name: weights.clone() for name, weights in model.network.state_dict().items()}
    with torch.inference_mode():  # as a caller may have it, and features of it
        again = read_relevance(model, prompt, features * 1.0, answer, ROWS, LAYERS)
    assert again.image.max() > 0
    assert all(torch.equal(weights, before[name]) for name, weights in model.network.state_dict().items())
    assert all(weights.grad is None and not weights.requires_grad for weights in model.network.parameters())
    (repeated,) = generate(model, [prompt], features[None], max_new_tokens=6)
    assert repeated == answer


def test_the_grid_is_the_weighted_mean(model: GemmaModel, features: torch.Tensor, prompt: list[int]) -> None:
    plan = ReadingPlan(Mode.GRADCAM, LAYERS, WEIGHTS, answer_tokens=3, max_new_tokens=6)
    image = InputImage(path=Path("any.png"), rgb=np.zeros((8, 8, 3), dtype=np.uint8), kind=ImageKind.OTHER)
    (looked,) = Looker(model, plan, TermList(())).ask(features, image, [QUESTION])
    (answer,) = generate(model, [prompt], features[None], max_new_tokens=6)
    read = read_relevance(model, prompt, features, answer, worded(model, answer).tokens[:3], LAYERS).image
    expected = np.tensordot(WEIGHTS, read.mean(axis=(0, 2)), axes=1)
    assert (looked.mode, looked.passed_over, looked.degenerate) == (Mode.GRADCAM, (), False)
    np.testing.assert_allclose(looked.grid, expected / expected.sum(), rtol=1e-4, atol=1e-7)


def test_rows_that_were_not_computed_are_an_error(
    model: GemmaModel, prompt: list[int], features: torch.Tensor, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataclasses.replace(model, network=copy.deepcopy(model.network))
    plain.network.set_attn_implementation("sdpa")
    monkeypatch.setattr(gradients, "make_readable", lambda _model: None)
    with pytest.raises(InferenceError, match="in 0 of 3 layers"):
        read_relevance(plain, prompt, features, answer, ROWS, LAYERS)
