"""An answer read back says what generation said, and attends as transformers' plain attention does."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_outputs import BaseModelOutputWithPooling

from m3node.errors import ConfigError, InferenceError
from m3node.gemma import reading
from m3node.gemma.attention import IMPLEMENTATION, make_readable, softmax_rows
from m3node.gemma.generation import Answer, generate, padded, read_in
from m3node.gemma.heads import Heads
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.reading import image_span, read_answers
from tests.small_gemma import small_gemma

QUESTIONS = ("Lesions?", "Where?", "Is there any lesion in this liver, and where?", "What is this?!")
LAYERS = (0, 1, 2, 3)
GLOBAL = (1, 3)


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    """Windows of 40 tokens: the image lies within them for some of the answer, and behind them for the rest."""
    return small_gemma(window=40, heads=8, key_heads=2, seed=12)


@pytest.fixture(scope="module")
def prompts(model: GemmaModel) -> list[list[int]]:
    return [prompt_ids(model, question) for question in QUESTIONS]


@pytest.fixture(scope="module")
def features(model: GemmaModel) -> torch.Tensor:
    network: Any = model.network
    generator = torch.Generator().manual_seed(2)
    shape = len(QUESTIONS), model.sizes.tokens**2, network.config.text_config.hidden_size
    return 6.0 * torch.randn(shape, generator=generator)


@pytest.fixture(scope="module")
def answers(model: GemmaModel, prompts: list[list[int]], features: torch.Tensor) -> list[Answer]:
    """Of different lengths."""
    whole = generate(model, prompts, features, max_new_tokens=30)
    cut = [
        dataclasses.replace(answer, token_ids=answer.token_ids[:length], log_probs=answer.log_probs[:length])
        for answer, length in zip(whole, (30, 1, 12, 25), strict=True)
    ]
    assert [len(answer.token_ids) for answer in cut] == [30, 1, 12, 25]
    return cut


@pytest.fixture(scope="module")
def eager(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> list[np.ndarray[Any, Any]]:
    """Each answer alone by transformers' own eager attention: [answer tokens, layers, heads, tokens, tokens]."""
    network: Any = copy.deepcopy(model.network)
    network.set_attn_implementation("eager")
    found = []
    for prompt, feature, answer in zip(prompts, features, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        output = network(
            input_ids=ids,
            token_type_ids=(ids == network.config.image_token_id).long(),
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=feature[None])},
            output_attentions=True,
        )
        first, last = image_span(model, prompt)
        attentions = torch.stack(output.attentions)[:, 0]  # layers, heads, queries, keys
        start = len(prompt) - 1
        rows = attentions[:, :, start : start + len(answer.token_ids), first:last].permute(2, 0, 1, 3)
        found.append(rows.unflatten(-1, (model.sizes.tokens,) * 2).numpy())
    return found


def all_rows(answers: list[Answer]) -> list[range]:
    return [range(len(answer.token_ids)) for answer in answers]


def test_log_probabilities_are_those_of_generation(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    for found, answer in zip(read_answers(model, prompts, features, answers, [[]] * 4, ()), answers, strict=True):
        assert found.log_probs.dtype == np.float32
        assert found.attention is None
        assert found.log_probs == pytest.approx(np.array(answer.log_probs), abs=1e-4)


def test_log_probabilities_are_those_of_the_whole_vocabulary(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor
) -> None:
    """Also of tokens that the model would not have chosen."""
    unlikely = [Answer(token_ids=(20, 31, 42), ended=True), Answer(token_ids=(77,), ended=True)]
    found = read_answers(model, prompts[:2], features[:2], unlikely, [[], []], ())
    for at, answer in enumerate(unlikely):
        hidden = read_in(model, padded(model, [[*prompts[at], *answer.token_ids]]), features[at : at + 1])
        network: Any = model.network
        chances = network.lm_head(hidden[0]).log_softmax(-1)
        expected = [chances[len(prompts[at]) - 1 + step, token].item() for step, token in enumerate(answer.token_ids)]
        assert found[at].log_probs == pytest.approx(np.array(expected), abs=1e-4)


@pytest.mark.parametrize("layers", [LAYERS, GLOBAL, (2,), (3, 0)])
def test_attention_of_all_heads_is_that_of_eager_attention(  # noqa: PLR0917 - fixtures
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    answers: list[Answer],
    eager: list[np.ndarray[Any, Any]],
    layers: tuple[int, ...],
) -> None:
    found = read_answers(model, prompts, features, answers, all_rows(answers), layers, "all")
    for one, expected in zip(found, eager, strict=True):
        assert one.attention is not None
        assert one.attention.dtype == np.float32
        np.testing.assert_allclose(one.attention, expected[:, layers], atol=1e-4)


def test_attention_by_groups_and_in_the_mean_is_the_mean_of_heads(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    answers: list[Answer],
    eager: list[np.ndarray[Any, Any]],
) -> None:
    groups = read_answers(model, prompts, features, answers, all_rows(answers), LAYERS, "groups")
    mean = read_answers(model, prompts, features, answers, all_rows(answers), LAYERS)
    for group, one, expected in zip(groups, mean, eager, strict=True):
        assert group.attention is not None
        assert one.attention is not None
        # Query heads 0 to 3 share the first key head.
        by_group = np.stack([expected[:, :, :4].mean(axis=2), expected[:, :, 4:].mean(axis=2)], axis=2)
        np.testing.assert_allclose(group.attention, by_group, atol=1e-4)
        np.testing.assert_allclose(one.attention, expected.mean(axis=(1, 2)), atol=1e-4)
        assert (one.attention.sum(axis=(1, 2)) <= 1 + 1e-5).all()


def test_only_the_wanted_rows_come_in_the_order_asked_for(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    answers: list[Answer],
    eager: list[np.ndarray[Any, Any]],
) -> None:
    rows = [[29, 3, 4], [], [0], [24]]
    for one, expected, wanted in zip(
        read_answers(model, prompts, features, answers, rows, GLOBAL, "all"), eager, rows, strict=True
    ):
        assert one.attention is not None
        np.testing.assert_allclose(one.attention, expected[wanted][:, GLOBAL], atol=1e-4)


def test_behind_the_window_image_attention_is_exactly_nothing(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    (found,) = read_answers(model, prompts[:1], features[:1], answers[:1], all_rows(answers[:1]), LAYERS, "all")
    assert found.attention is not None
    _, last = image_span(model, prompts[0])
    behind = len(prompts[0]) - 1 + 29 - 40 >= last
    assert behind
    assert (found.attention[29, [0, 2]] == 0).all()
    assert (found.attention[29, [1, 3]] > 0).all()


def test_many_rows_and_many_tokens_are_worked_on_in_parts(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    answers: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = read_answers(model, prompts, features, answers, all_rows(answers), LAYERS, "all")
    monkeypatch.setattr("m3node.gemma.attention.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("m3node.gemma.reading._LOGITS_AT_ONCE", 9)
    sizes: list[int] = []
    hook = model.network.lm_head.register_forward_pre_hook(lambda _module, inputs: sizes.append(inputs[0].shape[0]))
    parts = read_answers(model, prompts, features, answers, all_rows(answers), LAYERS, "all")
    hook.remove()
    assert sum(sizes) == 30 + 1 + 12 + 25  # a logit for answer tokens, and for no other
    assert max(sizes) == 9
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
        assert one.attention is not None
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-6)


def test_rows_are_computed_under_every_kind_of_mask_that_the_library_may_give() -> None:
    """None, which is causal; True where a query sees a key; or a number that is added."""
    generator = torch.Generator().manual_seed(4)
    query, key = torch.randn(2, 4, 6, 8, generator=generator), torch.randn(2, 2, 6, 8, generator=generator)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    added = torch.where(causal, torch.randn(2, 1, 6, 6, generator=generator), -torch.inf)
    rows = torch.tensor([[0, 3], [5, 1]])
    for mask in (None, causal, causal.expand(2, -1, -1, -1), added):
        logits = query @ key.repeat_interleave(2, dim=1).transpose(2, 3) * 0.3
        logits = logits + added if mask is added else logits.masked_fill(~causal, -torch.inf)
        expected = logits.softmax(-1).unflatten(1, (2, 2))
        found = softmax_rows(query, key, mask, 0.3, rows)
        for one, whole, wanted in zip(found, expected, rows, strict=True):
            torch.testing.assert_close(one, whole[:, :, wanted])


def test_an_answer_without_a_word_is_read_too(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor
) -> None:
    (found,) = read_answers(model, prompts[:1], features[:1], [Answer((), ended=True)], [[]], GLOBAL)
    assert found.log_probs.shape == (0,)
    assert found.attention is not None
    assert found.attention.shape == (0, model.sizes.tokens, model.sizes.tokens)
    assert read_answers(model, [], features[:0], [], [], GLOBAL) == []


def test_the_implementation_is_registered_with_its_mask(model: GemmaModel) -> None:
    """Without the second registration transformers drops the mask silently, and padding and the future are seen."""
    assert IMPLEMENTATION in AttentionInterface._global_mapping
    assert IMPLEMENTATION in AttentionMaskInterface._global_mapping


def test_a_model_made_readable_computes_the_same_to_the_bit(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor
) -> None:
    plain = dataclasses.replace(model, network=copy.deepcopy(model.network))
    network: Any = plain.network
    network.set_attn_implementation("sdpa")
    batch = padded(plain, prompts)
    before = read_in(plain, batch, features)
    make_readable(plain)
    assert network.config.text_config._attn_implementation == IMPLEMENTATION
    assert network.config.vision_config._attn_implementation == "sdpa"
    assert torch.equal(read_in(plain, batch, features), before)


def test_rows_that_did_not_come_are_an_error(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    answers: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = dataclasses.replace(model, network=copy.deepcopy(model.network))
    plain.network.set_attn_implementation("sdpa")
    monkeypatch.setattr(reading, "make_readable", lambda _model: None)
    with pytest.raises(InferenceError, match="in 0 of 2 layers"):
        read_answers(plain, prompts, features, answers, [[0]] * 4, GLOBAL)


def test_two_threads_do_not_meet(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    wanted: list[tuple[list[int], tuple[int, ...], Heads]] = [
        ([0], GLOBAL, "all"),
        ([0, 0], (0,), "groups"),
        ([], (), "mean"),
        ([0, 0, 0], LAYERS, "mean"),
    ]

    def read(number: int) -> list[Any]:
        rows, layers, heads = wanted[number % 4]
        return read_answers(model, prompts, features, answers, [rows] * 4, layers, heads)

    alone = [read(number) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(read, range(16)))
    for number, found in enumerate(together):
        for one, expected in zip(found, alone[number % 4], strict=True):
            np.testing.assert_array_equal(one.log_probs, expected.log_probs)
            np.testing.assert_array_equal(one.attention, expected.attention)


def test_layers_that_the_model_lacks_are_refused(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    for wrong in (4, -1):
        with pytest.raises(ConfigError, match=f"language layers 0 to 3, none of number {wrong}"):
            read_answers(model, prompts, features, answers, [[]] * 4, (1, wrong))


def test_rows_beyond_the_answer_are_refused(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    for wrong in (1, -1):
        with pytest.raises(ValueError, match=f"an answer of 1 tokens has no row {wrong}"):
            read_answers(model, prompts, features, answers, [[0], [wrong], [0], [0]], GLOBAL)


def test_the_image_is_found_by_its_tokens(model: GemmaModel, prompts: list[list[int]]) -> None:
    network: Any = model.network
    image = network.config.image_token_id
    for prompt in prompts:
        first, last = image_span(model, prompt)
        assert prompt[first:last] == [image] * model.sizes.tokens**2
        assert image not in prompt[:first] + prompt[last:]
    whole = [image] * model.sizes.tokens**2
    for wrong in ([5, 6], whole[1:], [*whole, image], [*whole[:2], 5, *whole[2:]], [*whole, 5, *whole]):
        with pytest.raises(InferenceError, match="in one run"):
            image_span(model, wrong)
