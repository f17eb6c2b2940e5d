"""Answers of a batch are those of each image alone, and those of transformers' own generation."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from m3node.errors import InferenceError
from m3node.gemma import generation
from m3node.gemma.cache import ROOM, roomy_cache
from m3node.gemma.generation import BUCKET_TOKENS, Answer, buckets, end_tokens, generate, padded, read_in
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from tests.small_gemma import small_gemma

NEW = 40
QUESTIONS = ("Lesions?", "Where?", "Is there any lesion in this liver, and where does it lie?", "What?", "Any?!")


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    """Its window of 24 tokens is shorter than any prompt, so that sliding layers do slide."""
    return small_gemma(window=24, seed=3)


@pytest.fixture(scope="module")
def prompts(model: GemmaModel) -> list[list[int]]:
    return [prompt_ids(model, question) for question in QUESTIONS]


@pytest.fixture(scope="module")
def features(model: GemmaModel) -> torch.Tensor:
    return features_of(model, len(QUESTIONS))


def features_of(model: GemmaModel, count: int) -> torch.Tensor:
    network: Any = model.network
    generator = torch.Generator().manual_seed(7)
    return 6.0 * torch.randn(count, model.sizes.tokens**2, network.config.text_config.hidden_size, generator=generator)


def transformers_answer(model: GemmaModel, prompt: list[int], feature: torch.Tensor) -> tuple[list[int], list[float]]:
    """One prompt by transformers' own `generate`: new tokens, and the logarithm of each one's probability."""
    network: Any = model.network
    ids = torch.tensor([prompt])
    output = network.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=(ids == network.config.image_token_id).long(),
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=feature[None])},
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=[1],
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        ),
    )
    new = output.sequences[0, len(prompt) :].tolist()
    scores = [logits[0].log_softmax(-1)[token].item() for logits, token in zip(output.logits, new, strict=True)]
    return new, scores


def test_answers_and_their_probabilities_are_those_of_transformers(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor
) -> None:
    answers = generate(model, prompts, features, max_new_tokens=NEW)
    assert len({answer.token_ids for answer in answers}) > 1  # it does look at its input
    for answer, prompt, feature in zip(answers, prompts, features, strict=True):
        tokens, scores = transformers_answer(model, prompt, feature)
        said = [token for token in tokens if token != 1]
        assert list(answer.token_ids) == said
        assert answer.log_probs == pytest.approx(scores[: len(said)], abs=1e-4)


@pytest.mark.parametrize("window", [9, 24, 64, 1024])
def test_a_batch_with_padding_answers_as_each_image_alone(window: int) -> None:
    model = small_gemma(window=window, seed=5)
    prompts = [prompt_ids(model, question) for question in QUESTIONS]
    features = features_of(model, len(prompts))
    together = generate(model, prompts, features, max_new_tokens=NEW)
    alone = [
        generate(model, [prompt], features[at : at + 1], max_new_tokens=NEW)[0] for at, prompt in enumerate(prompts)
    ]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def test_answers_longer_than_the_caches_room_go_on_right(model: GemmaModel, prompts: list[list[int]]) -> None:
    long = 2 * ROOM
    features = features_of(model, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generation, "end_tokens", lambda _model: frozenset({-1}))
        (answer,) = generate(model, prompts[:1], features, max_new_tokens=long)
    assert len(answer.token_ids) == long
    whole = padded(model, [[*prompts[0], *answer.token_ids[:-1]]])
    logits: Any = model.network.lm_head(read_in(model, whole, features))
    assert logits[0, len(prompts[0]) - 1 :].argmax(-1).tolist() == list(answer.token_ids)


@pytest.mark.parametrize("look_every", [1, 3, 8, 64])
def test_who_has_ended_is_dropped_and_the_others_go_on_alike(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    look_every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "end_tokens", lambda _model: frozenset({-1}))
    endless = generate(model, prompts, features, max_new_tokens=NEW)
    spoken = [token for answer in endless for token in answer.token_ids]
    # An end that comes early in some answers and late or never in others.
    end = max(set(spoken), key=lambda token: len({(*answer.token_ids, token).index(token) for answer in endless}))
    ends = [(*answer.token_ids, end).index(end) for answer in endless]
    assert len(set(ends)) > 2
    monkeypatch.setattr(generation, "end_tokens", lambda _model: frozenset({end}))
    monkeypatch.setitem(generation._LOOK_EVERY, "cpu", look_every)
    shapes: list[tuple[int, int]] = []
    hook = model.network.model.language_model.register_forward_pre_hook(
        lambda _module, _inputs, named: shapes.append(named["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    answers = generate(model, prompts, features, max_new_tokens=NEW)
    hook.remove()
    for answer, whole, last in zip(answers, endless, ends, strict=True):
        assert answer.token_ids == whole.token_ids[:last]
        assert answer.ended == (last < NEW)
        assert answer.log_probs == pytest.approx(whole.log_probs[:last], abs=1e-4)
    # Prompts of like length go together: a pass over all of them, and then one for each token.
    starts = [at for at, (_, tokens) in enumerate(shapes) if tokens > 1]
    together = [rows for rows, _ in shapes[starts[0] : starts[1]]]
    assert together[0] == 4
    assert together == sorted(together, reverse=True)
    assert (together[-1] < 4) == (look_every < NEW)


def test_an_answer_that_reaches_the_limit_has_not_ended(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor
) -> None:
    whole = generate(model, prompts, features, max_new_tokens=NEW)
    assert any(len(answer.token_ids) > 2 for answer in whole)
    for answer, cut in zip(whole, generate(model, prompts, features, max_new_tokens=2), strict=True):
        if len(answer.token_ids) > 2:
            assert (cut.token_ids, cut.ended) == (answer.token_ids[:2], False)
            assert len(cut.log_probs) == 2


@pytest.mark.parametrize("padding", [False, True])
def test_without_padding_there_is_no_mask_to_slow_attention_down(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, padding: bool
) -> None:
    masks: list[Any] = []
    hook = model.network.model.register_forward_pre_hook(
        lambda _module, _inputs, named: masks.append(named["attention_mask"]), with_kwargs=True
    )
    generate(model, [prompts[0], prompts[1 if padding else 0]], features[:2], max_new_tokens=3)
    hook.remove()
    _, *steps = masks
    assert len(steps) == 2
    for mask in steps:
        assert {kind: found is not None for kind, found in mask.items()} == {
            "full_attention": padding,
            "sliding_attention": padding,
        }


def test_images_are_not_encoded_again(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode_again(*_arguments: object, **_named: object) -> None:
        raise AssertionError("the vision encoder ran")

    monkeypatch.setattr(model.network.model.vision_tower, "forward", encode_again)
    generate(model, prompts, features, max_new_tokens=3)


def test_each_prompt_sees_its_own_image(model: GemmaModel, prompts: list[list[int]], features: torch.Tensor) -> None:
    turned = torch.arange(len(prompts)).flip(0)
    forward = generate(model, prompts, features, max_new_tokens=NEW)
    backward = generate(model, [prompts[at] for at in turned], features[turned], max_new_tokens=NEW)
    assert [answer.token_ids for answer in forward] == [answer.token_ids for answer in reversed(backward)]
    others = generate(model, prompts, features.roll(1, 0), max_new_tokens=NEW)
    assert [answer.token_ids for answer in forward] != [answer.token_ids for answer in others]


def test_image_tokens_see_each_other_both_ways(model: GemmaModel, prompts: list[list[int]]) -> None:
    """Without token types they would see backwards only: the first one must change with the last one's pixels."""
    batch = padded(model, [prompts[0], prompts[2]])
    features = features_of(model, 2)
    changed = features.clone()
    changed[:, -1] += 3.0
    first = batch.types.argmax(dim=1)
    for row in range(2):
        assert batch.types[row].sum() == model.sizes.tokens**2
        before, after = (read_in(model, batch, values)[row, first[row]] for values in (features, changed))
        assert (before - after).abs().max() > 1e-3


def test_padding_is_never_taken_for_an_image_and_positions_count_from_the_first_token(
    model: GemmaModel, prompts: list[list[int]]
) -> None:
    network: Any = model.network
    tokenizer: Any = SimpleNamespace(pad_token_id=network.config.image_token_id)
    batch = padded(replace(model, tokenizer=tokenizer), [prompts[0], prompts[2]])
    before = batch.padding[0]
    assert before > 0
    assert batch.ids[0, :before].tolist() == [network.config.image_token_id] * before
    assert batch.types[0, :before].sum() == 0
    assert not batch.seen[0, :before].any()
    assert batch.positions[0, before:].tolist() == list(range(len(prompts[0])))
    assert batch.positions[1].tolist() == list(range(len(prompts[2])))


def test_features_of_more_or_fewer_images_than_the_prompts_hold_are_refused(
    model: GemmaModel, prompts: list[list[int]]
) -> None:
    batch, image = padded(model, [prompts[0], prompts[2]]), model.sizes.tokens**2
    for wrong in (1, 3):
        with pytest.raises(InferenceError, match=f"{2 * image} image tokens, and .* for {wrong * image}$"):
            read_in(model, batch, features_of(model, wrong))


def test_the_images_token_may_lie_behind_the_vocabulary(model: GemmaModel, prompts: list[list[int]]) -> None:
    network: Any = copy.deepcopy(model.network)
    token, behind = network.config.image_token_id, network.config.text_config.vocab_size
    network.config.image_token_id = behind
    other, moved = replace(model, network=network), [behind if number == token else number for number in prompts[0]]
    features = features_of(model, 1)
    within = read_in(model, padded(model, prompts[:1]), features)
    assert torch.equal(read_in(other, padded(other, [moved]), features), within)


def test_what_stands_in_the_padding_changes_nothing(model: GemmaModel, prompts: list[list[int]]) -> None:
    batch = padded(model, [prompts[0], prompts[2]])
    features = features_of(model, 2)
    before = batch.padding[0]
    hidden = read_in(model, batch, features)[0, before:]
    batch.ids[0, :before] = 17
    assert torch.equal(read_in(model, batch, features)[0, before:], hidden)


def test_lengths_that_differ_much_do_not_share_a_batch() -> None:
    lengths = [10, 500, 10 + BUCKET_TOKENS, 11 + BUCKET_TOKENS, 12, 499]
    groups = list(buckets(lengths))
    assert groups == [[0, 4, 2], [3], [5, 1]]
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    assert list(buckets([])) == []


def test_all_ways_to_name_the_end_count(model: GemmaModel) -> None:
    network: Any = model.network
    assert end_tokens(model) == {1, 4}  # <eos> and <end_of_turn>
    with pytest.MonkeyPatch.context() as patched:
        tokenizer: Any = SimpleNamespace(eos_token_id=9)
        sources = (network.generation_config, network.config, network.config.text_config)
        for source, named in zip(sources, ([1, 5], 6, [7]), strict=True):
            patched.setattr(source, "eos_token_id", named)
        assert end_tokens(replace(model, tokenizer=tokenizer)) == {1, 5, 6, 7, 9}


def test_no_prompts_no_answers(model: GemmaModel) -> None:
    assert generate(model, [], features_of(model, 0), max_new_tokens=3) == []


def test_prompts_and_images_must_be_as_many(model: GemmaModel, prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="5 prompts, but features of 2 images"):
        generate(model, prompts, features_of(model, 2), max_new_tokens=3)


def test_the_text_holds_the_special_tokens(model: GemmaModel) -> None:
    tokenizer: Any = model.tokenizer
    # With blanks before signs, too: some libraries tidy them up, and every character behind would be another one.
    said = "<start_of_turn>Läsion [1 , 2] ! it 's<eos>"
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids)
    assert Answer(token_ids=tuple(ids), ended=True).text(model) == said


def test_the_cache_holds_what_may_be_seen_and_copies_little() -> None:
    text_config = small_gemma(window=24).network.config.text_config
    cache = roomy_cache(text_config)
    assert list(cache.is_sliding) == [True, False, True, False]
    generator = torch.Generator().manual_seed(1)
    everything = torch.zeros(2, 1, 0, 4)
    stores: set[int] = set()
    for new in [50, *[1] * 3 * ROOM]:
        states = torch.randn(2, 1, new, 4, generator=generator)
        everything = torch.cat([everything, states], dim=2)
        for layer, window in ((0, 24), (1, None)):
            total = everything.shape[2]
            visible = total if window is None else min(total, new + min(total - new, window - 1))
            assert cache.get_mask_sizes(new, layer) == (visible, total - visible)
            keys, values = cache.update(states, -states, layer)
            assert torch.equal(keys, everything[:, :, total - visible :])
            assert torch.equal(values, -keys)
            stores.add(keys.untyped_storage().data_ptr())
            held = keys.untyped_storage().nbytes() // states[:, :, :1].nbytes
            # The window, the prompt or one new token, and room: never all that was said.
            assert window is None or held <= 50 + window + 2 * ROOM
        assert cache.get_seq_length() == everything.shape[2]
    assert len(stores) < 10
    cache.batch_select_indices(torch.tensor([1]))
    assert all(
        (layer.keys, layer.values) == (None, None) for layer in cache.layers
    )  # views would hold the others' rows
    keys, _ = cache.update(states[1:], states[1:], 1)
    assert torch.equal(keys[:, :, :-1], everything[1:])
