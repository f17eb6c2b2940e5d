"""What is read of 256 image tokens, by every layer and head, is what transformers' own eager attention says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.questions.terms import TermList
from m3node.attention.reading import looker as module
from m3node.attention.reading.looked import Looked
from m3node.attention.reading.looker import Looker
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.errors import ConfigError, InferenceError
from m3node.gemma import reading
from m3node.gemma.generation import Answer, generate
from m3node.gemma.gradients import read_relevance
from m3node.gemma.heads import Heads
from m3node.gemma.images import SquareFrame
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.reading import image_span, read_answers
from m3node.gemma.rollout import read_rollout
from m3node.gemma.wording import worded
from tests.eager_attention import eager_copy, eager_pass, sharpened
from tests.small_gemma import small_gemma

SIDE, HEADS, GROUPS = 16, 8, 4
LAYERS = (0, 1, 2, 3, 4, 5)
GLOBAL = (2, 5)
WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.2, 0.3)
QUESTIONS = ("Is there a pneumothorax, or an effusion?", "Is the heart enlarged?", "Effusion?")
TERMS = TermList(("pneumothorax", "effusion", "heart"))
READ, SAID = 4, 9


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    """Four layers of a window in which a part of the image lies, and two global ones; attention is not flat."""
    model = small_gemma(
        image=224, tokens=SIDE, layers=6, heads=HEADS, key_heads=GROUPS, window=200, global_every=3, seed=5
    )
    assert model.sizes.global_layers == GLOBAL
    return sharpened(model)


@pytest.fixture(scope="module")
def image() -> InputImage:
    generator = np.random.default_rng(3)
    rgb = generator.integers(0, 256, (60, 40, 3), dtype=np.uint8)
    return InputImage(path=Path("phantom.png"), rgb=rgb, kind=ImageKind.OTHER, spacing=(0.5, 0.7))


def plan(mode: Mode = Mode.RAW, heads: Heads = "mean", answer_tokens: int = READ) -> ReadingPlan:
    return ReadingPlan(
        mode=mode, layers=LAYERS, weights=WEIGHTS, heads=heads, answer_tokens=answer_tokens, max_new_tokens=SAID
    )


@pytest.fixture(scope="module")
def features(model: GemmaModel, image: InputImage) -> torch.Tensor:
    return Looker(model, plan(), TERMS).features(image)


@pytest.fixture(scope="module")
def prompts(model: GemmaModel) -> list[list[int]]:
    return [prompt_ids(model, question) for question in QUESTIONS]


@pytest.fixture(scope="module")
def answers(model: GemmaModel, prompts: list[list[int]], features: torch.Tensor) -> list[Answer]:
    """Of three prompts of different lengths, together; with what the model made of the prompts."""
    batch = features.expand(len(prompts), -1, -1)
    return generate(model, prompts, batch, max_new_tokens=SAID, keep_prompts=True)


@pytest.fixture(params=["read on", "read anew"])
def read(request: pytest.FixtureRequest, answers: list[Answer]) -> list[Answer]:
    """Answers with the prompts' states, and without, when all is read in once more."""
    if request.param == "read on":
        return answers
    return [dataclasses.replace(answer, states=None) for answer in answers]


@pytest.fixture(scope="module")
def eager(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> list[np.ndarray[Any, Any]]:
    """Rows of the queries that produced each answer's tokens: [answer tokens, layers, heads, tokens]."""
    network = eager_copy(model)
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        attentions = eager_pass(network, [*prompt, *answer.token_ids], features).stacked
        rows = range(len(prompt) - 1, len(prompt) - 1 + len(answer.token_ids))
        found.append(attentions[:, :, rows].permute(2, 0, 1, 3).numpy())
    return found


@pytest.fixture(scope="module")
def raw(model: GemmaModel, features: torch.Tensor, image: InputImage) -> list[Looked]:
    return Looker(model, plan(heads="all"), TERMS).ask(features, image, QUESTIONS)


def image_of(model: GemmaModel, prompt: Sequence[int], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    first, last = image_span(model, prompt)
    return rows[..., first:last].reshape(*rows.shape[:-1], SIDE, SIDE)


def closely(found: object, expected: np.ndarray[Any, Any]) -> None:
    """Each number within 1 of 10,000; what is 0 is 0."""
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=0)


def test_every_layer_and_head_is_that_of_eager_attention(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    read: list[Answer],
    eager: list[np.ndarray[Any, Any]],
) -> None:
    rows = [range(len(answer.token_ids)) for answer in read]
    batch = features.expand(len(prompts), -1, -1)
    heads = read_answers(model, prompts, batch, read, rows, LAYERS, "all")
    groups = read_answers(model, prompts, batch, read, rows, LAYERS, "groups")
    partly_seen = False
    for prompt, expected, by_head, by_group in zip(prompts, eager, heads, groups, strict=True):
        grids = image_of(model, prompt, expected)
        assert grids.shape[1:] == (len(LAYERS), HEADS, SIDE, SIDE)
        closely(by_head.attention, grids)
        closely(by_group.attention, grids.reshape(-1, len(LAYERS), GROUPS, 2, SIDE, SIDE).mean(axis=3))
        unseen = (grids[:, [0, 1, 3, 4]] == 0).mean()
        partly_seen |= 0 < unseen < 1
        assert (grids[:, GLOBAL] > 0).all()
    assert partly_seen


def test_the_words_of_the_question_are_read_in_the_same_pass(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    read: list[Answer],
    eager: list[np.ndarray[Any, Any]],
) -> None:
    words = [[len(prompt) - 20 + at for at in range(number)] for number, prompt in zip((7, 0, 3), prompts, strict=True)]
    batch = features.expand(len(prompts), -1, -1)
    rows = [[0, 2], [1], [4, 0, 3]]
    found = read_answers(model, prompts, batch, read, rows, LAYERS, "all", words=words)
    for one, prompt, places, wanted, expected in zip(found, prompts, words, rows, eager, strict=True):
        assert one.words is not None
        assert one.words.shape == (len(wanted), len(LAYERS), HEADS, len(places))
        closely(one.words, expected[wanted][..., places])
        closely(one.attention, image_of(model, prompt, expected[wanted]))
    with pytest.raises(ValueError, match="has no token 9999"):
        read_answers(model, prompts, batch, read, [[0]] * 3, LAYERS, "all", words=[[9999], [], []])
    with pytest.raises(ValueError, match="3 prompts, words of 1"):
        read_answers(model, prompts, batch, read, [[0]] * 3, LAYERS, "all", words=[[]])


def test_raw_is_the_weighted_mean_of_eager_attention(
    model: GemmaModel,
    prompts: list[list[int]],
    answers: list[Answer],
    eager: list[np.ndarray[Any, Any]],
    raw: list[Looked],
) -> None:
    for looked, prompt, answer, expected in zip(raw, prompts, answers, eager, strict=True):
        first = first_words(model, answer)
        shares = image_of(model, prompt, expected[first])
        mean = np.tensordot(WEIGHTS, shares.mean(axis=(0, 2)), axes=1)
        assert looked.grid.dtype == np.float32
        assert looked.grid.sum() == pytest.approx(1.0, abs=1e-5)
        closely(looked.image_share, mean.sum())
        closely(looked.by_head, shares.mean(axis=0))
        assert looked.log_prob == pytest.approx(np.mean([answer.log_probs[at] for at in first]), abs=1e-4)
        assert len(looked.tokens) == READ
        assert (looked.mode, looked.passed_over, looked.degenerate) == (Mode.RAW, (), False)
        closely(looked.grid, mean / mean.sum())
        assert looked.area == SquareFrame.of((60, 40), (0.5, 0.7)).area


def test_gated_weighs_each_row_by_what_it_pays_to_the_terms(  # noqa: PLR0917 - fixtures
    model: GemmaModel,
    features: torch.Tensor,
    image: InputImage,
    prompts: list[list[int]],
    answers: list[Answer],
    eager: list[np.ndarray[Any, Any]],
    raw: list[Looked],
) -> None:
    found = Looker(model, plan(Mode.GATED), TERMS).ask(features, image, QUESTIONS)
    every = zip(found, raw, prompts, answers, eager, QUESTIONS, strict=True)
    for looked, ungated, prompt, answer, expected, question in every:
        first = first_words(model, answer)
        # A token a letter; behind the question the turn ends and the answer's begins.
        letters = len(prompt) - len(prompt_ids_behind(model)) - len(question) + np.arange(len(question))
        assert model.tokenizer.decode([prompt[at] for at in letters]) == question
        terms = [letters[first:last] for first, last in TERMS.spans(question)]
        gates = expected[first][..., np.concatenate(terms)].sum(axis=-1)
        shares = image_of(model, prompt, expected[first])
        mean = np.tensordot(WEIGHTS, (shares * gates[..., None, None]).mean(axis=(0, 2)), axes=1)
        assert (looked.mode, looked.passed_over, looked.degenerate) == (Mode.GATED, (), False)
        closely(looked.grid, mean / mean.sum())
        assert looked.terms == tuple(question[first:last] for first, last in TERMS.spans(question))
        assert np.abs(looked.grid - ungated.grid).max() > 1e-3
        assert looked.image_share == pytest.approx(ungated.image_share, rel=1e-5)


def test_a_token_that_two_terms_share_gates_once(
    model: GemmaModel, features: torch.Tensor, image: InputImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = []
    for places in ([(200, 201), (201, 202)], [(200, 201, 202)]):
        monkeypatch.setattr(module, "tokens_of_words", lambda *_, places=places: places)
        (looked,) = Looker(model, plan(Mode.GATED), TERMS).ask(features, image, QUESTIONS[:1])
        grids.append(looked.grid)
    assert looked.mode is Mode.GATED
    np.testing.assert_array_equal(*grids)


def test_one_pass_serves_raw_and_gated(
    model: GemmaModel, features: torch.Tensor, image: InputImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def counted(*arguments: Any, **more: Any) -> Any:
        passes.append(len(arguments[1]))
        return read_answers(*arguments, **more)

    monkeypatch.setattr(module, "read_answers", counted)
    Looker(model, plan(Mode.GATED), TERMS).ask(features, image, [QUESTIONS[0], "Where?"])
    assert passes == [2]


@pytest.mark.parametrize("kind", ["groups", "all", "mean"])
def test_heads_are_kept_as_the_plan_asks(
    model: GemmaModel, features: torch.Tensor, image: InputImage, raw: list[Looked], kind: Heads
) -> None:
    (found,) = Looker(model, plan(heads=kind), TERMS).ask(features, image, QUESTIONS[:1])
    whole = raw[0].by_head
    assert whole is not None
    if kind == "mean":
        assert found.by_head is None
    elif kind == "groups":
        np.testing.assert_allclose(found.by_head, whole.reshape(6, GROUPS, 2, SIDE, SIDE).mean(axis=2), rtol=1e-4)
    else:
        np.testing.assert_allclose(found.by_head, whole, rtol=1e-4)


def test_the_second_pass_sees_what_generation_saw(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, read: list[Answer]
) -> None:
    assert apart(model, prompts, features, read) < 1e-4


def test_prompts_are_not_read_in_twice(
    model: GemmaModel, features: torch.Tensor, image: InputImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: Any, **_more: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(reading, "read_in", never)
    assert Looker(model, plan(), TERMS).ask(features, image, QUESTIONS)[2].mode is Mode.RAW


def test_all_is_read_anew_where_one_answer_holds_no_states(
    model: GemmaModel,
    prompts: list[list[int]],
    features: torch.Tensor,
    answers: list[Answer],
    eager: list[np.ndarray[Any, Any]],
) -> None:
    some = [answers[0], dataclasses.replace(answers[1], states=None), answers[2]]
    found = read_answers(model, prompts, features.expand(len(prompts), -1, -1), some, [[1]] * 3, LAYERS, "all")
    for one, prompt, expected in zip(found, prompts, eager, strict=True):
        closely(one.attention, image_of(model, prompt, expected[[1]]))


def test_answers_hold_no_states_unless_asked_to(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    plain = generate(model, prompts, features.expand(len(prompts), -1, -1), max_new_tokens=SAID)
    assert all(answer.states is None for answer in plain)
    assert plain == answers


def test_a_second_pass_with_a_causal_mask_on_the_image_would_be_noticed(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    """The trap: image tokens see each other both ways when the answer is made, and only backwards when it is read."""

    def causal(_module: Any, arguments: Any, more: dict[str, Any]) -> Any:
        return arguments, more | {"token_type_ids": torch.zeros_like(more["token_type_ids"])}

    anew = [dataclasses.replace(answer, states=None) for answer in answers]
    network: Any = model.network
    hook = network.model.register_forward_pre_hook(causal, with_kwargs=True)
    noticed = apart(model, prompts, features, anew)
    hook.remove()
    assert noticed > 1e-2


def test_the_image_is_where_its_tokens_are_behind_a_text_too(image: InputImage) -> None:
    """The trap: a span guessed from the prompt's beginning holds other words than the image."""
    plain = sharpened(small_gemma(window=40, seed=9))
    late = dataclasses.replace(plain, profile=dataclasses.replace(plain.profile, image_first=False, system="Be brief."))
    looker = Looker(late, ReadingPlan(Mode.RAW, (1, 3), (0.5, 0.5), "all", 2, 2), TERMS)
    features = looker.features(image)
    (looked,) = looker.ask(features, image, ["Where is it?"])
    prompt = prompt_ids(late, "Where is it?")
    (answer,) = generate(late, [prompt], features[None], max_new_tokens=2)
    rows = eager_pass(eager_copy(late), [*prompt, *answer.token_ids], features).stacked[[1, 3]]
    rows = rows[:, :, [len(prompt) - 1, len(prompt)]]
    at = prompt.index(late.network.config.image_token_id)
    closely(looked.by_head, rows[..., at : at + 4].mean(dim=2).unflatten(-1, (2, 2)).numpy())
    guessed = prompt_ids(plain, "Where is it?").index(plain.network.config.image_token_id)
    assert at - guessed > 20
    assert (rows[..., guessed : guessed + 4] - rows[..., at : at + 4]).abs().max() > 1e-2


def test_an_image_token_elsewhere_is_refused(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, image: InputImage
) -> None:
    token = model.network.config.image_token_id
    for wrong in ([token, *prompts[0]], [*prompts[0], token]):
        with pytest.raises(InferenceError, match="in one run"):
            read_answers(model, [wrong], features[None], [Answer((20,), ended=True)], [[0]], LAYERS)
    with pytest.raises(ConfigError, match="may not hold the model's own token '<image>'"):
        Looker(model, plan(), TERMS).ask(features, image, ["Is there a <image> in it?"])


def test_an_images_token_that_was_said_is_a_word_like_any_other(
    model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]
) -> None:
    """The trap: of so many image tokens the image is not one, and two of them see each other both ways."""
    token = model.network.config.image_token_id
    said = [dataclasses.replace(answer, token_ids=(20, token, token, 21)) for answer in answers]
    anew = [dataclasses.replace(answer, states=None) for answer in said]
    batch = features.expand(len(prompts), -1, -1)
    every = [read_answers(model, prompts, batch, read, [[0, 2, 3]] * 3, LAYERS, "all") for read in (said, anew)]
    for on, again in zip(*every, strict=True):
        closely(again.log_probs, on.log_probs)
        assert on.attention is not None
        closely(again.attention, on.attention)
    on, again = (read_relevance(model, prompts[2], features, read[2], (0, 3), LAYERS) for read in (said, anew))
    np.testing.assert_allclose(again.image, on.image, rtol=1e-3, atol=1e-6 * on.image.max())
    plain = dataclasses.replace(said[2], token_ids=(20, 22, 23, 21))
    # Up to there nothing else was said.
    closely(*(read_rollout(model, prompts[2], features, one, (0, 3))[0] for one in (said[2], plain)))


def test_an_image_is_encoded_once_for_all_its_questions(model: GemmaModel, image: InputImage) -> None:
    encoded: list[int] = []
    looker = Looker(model, plan(Mode.GATED), TERMS)
    tower: Any = model.network.model.vision_tower
    hook = tower.encoder.layers[0].register_forward_hook(lambda *_: encoded.append(1))
    looker.ask(looker.features(image), image, QUESTIONS)
    hook.remove()
    assert encoded == [1]


def test_a_question_is_answered_the_same_alone(
    model: GemmaModel, features: torch.Tensor, image: InputImage, raw: list[Looked]
) -> None:
    looker = Looker(model, plan(), TERMS)
    for question, together in zip(QUESTIONS, raw, strict=True):
        (alone,) = looker.ask(features, image, [question])
        assert (alone.answer, alone.tokens, alone.ended) == (together.answer, together.tokens, together.ended)
        np.testing.assert_allclose(alone.grid, together.grid, rtol=1e-4)


def test_what_does_not_fit_together_is_asked_in_parts(
    model: GemmaModel,
    features: torch.Tensor,
    image: InputImage,
    raw: list[Looked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[str, int]] = []

    def with_room_for_one(name: str, work: Any) -> Any:
        def limited(*arguments: Any, **more: Any) -> Any:
            tried.append((name, len(arguments[1])))
            if len(arguments[1]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return work(*arguments, **more)

        return limited

    monkeypatch.setattr(module, "generate", with_room_for_one("answered", generate))
    monkeypatch.setattr(module, "read_answers", with_room_for_one("read", read_answers))
    looker = Looker(model, plan(), TERMS)
    found = looker.ask(features, image, QUESTIONS)
    assert tried == [("answered", 3), *[("answered", 1), ("read", 1)] * 3]
    tried.clear()
    looker.ask(features, image, QUESTIONS[:2])  # what fits is known by now
    assert tried == [("answered", 1), ("read", 1)] * 2
    for one, together in zip(found, raw, strict=True):
        assert one.answer == together.answer
        np.testing.assert_allclose(one.grid, together.grid, rtol=1e-4)


def test_a_model_that_breaks_off_is_an_inference_error(
    model: GemmaModel, features: torch.Tensor, image: InputImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any, **_more: Any) -> Any:
        raise RuntimeError("mat1 and mat2\nand a stack")

    looker = Looker(model, plan(), TERMS)
    for part, work in (
        ("generate", lambda: looker.ask(features, image, QUESTIONS)),
        ("image_features", lambda: looker.features(image)),
    ):
        monkeypatch.setattr(module, part, broken)
        with pytest.raises(InferenceError, match=r"^the model failed: mat1 and mat2$"):
            work()


def test_an_image_of_one_pixel_is_looked_at_too(model: GemmaModel) -> None:
    dot = InputImage(path=Path("dot.png"), rgb=np.full((1, 1, 3), 200, dtype=np.uint8), kind=ImageKind.XRAY)
    looker = Looker(model, plan(), TERMS)
    (looked,) = looker.ask(looker.features(dot), dot, ["Effusion?"])
    assert looked.grid.sum() == pytest.approx(1, abs=1e-5)
    assert looked.area == (0.0, 0.0, 1.0, 1.0)


def first_words(model: GemmaModel, answer: Answer) -> list[int]:
    """The tokens to be read: random weights may begin with characters that count as white space."""
    return list(worded(model, answer).tokens[:READ])


def prompt_ids_behind(model: GemmaModel) -> list[int]:
    tokenizer: Any = model.tokenizer
    ids: list[int] = tokenizer("<end_of_turn>\n<start_of_turn>model\n", add_special_tokens=False)["input_ids"]
    return ids


def apart(model: GemmaModel, prompts: list[list[int]], features: torch.Tensor, answers: list[Answer]) -> float:
    """How far the log-probabilities of generation and of the reading pass lie apart, at most."""
    batch = features.expand(len(prompts), -1, -1)
    found = read_answers(model, prompts, batch, answers, [[0]] * len(prompts), LAYERS, "all")
    return max(
        np.abs(one.log_probs - np.array(answer.log_probs)).max() for one, answer in zip(found, answers, strict=True)
    )
