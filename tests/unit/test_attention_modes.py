"""When one way of reading says nothing, the next stands in for it, and the row says so; layers and their weights."""

from __future__ import annotations

import dataclasses
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.questions.terms import TermList
from m3node.attention.reading import looker as module
from m3node.attention.reading.grids import gated, mean_grid, spread, what_is_wrong
from m3node.attention.reading.layers import choose_layers
from m3node.attention.reading.looked import Looked
from m3node.attention.reading.looker import Looker
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.errors import ConfigError
from m3node.gemma.generation import Answer, generate
from m3node.gemma.gradients import Relevance
from m3node.gemma.model import GemmaModel
from tests.eager_attention import sharpened
from tests.small_gemma import small_gemma

LAYERS = (1, 3)
PEAK = np.eye(8, dtype=np.float64)[:, :8] * np.array([1.0, *[0.01] * 7])
FLAT = np.ones((8, 8))
NOTHING = np.zeros((8, 8))
BROKEN = np.where(np.arange(64).reshape(8, 8) == 5, np.nan, 0.1)


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    return sharpened(small_gemma(image=112, tokens=8, heads=4, key_heads=2, seed=3))


@pytest.fixture(scope="module")
def image() -> InputImage:
    rgb = np.random.default_rng(5).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    return InputImage(path=Path("any.png"), rgb=rgb, kind=ImageKind.OTHER)


def look(model: GemmaModel, image: InputImage, mode: Mode, question: str = "Is there an effusion?") -> Looked:
    plan = ReadingPlan(mode, LAYERS, (0.5, 0.5), heads="all", answer_tokens=3, max_new_tokens=4)
    looker = Looker(model, plan, TermList(("effusion",)))
    (looked,) = looker.ask(looker.features(image), image, [question])
    return looked


def with_grids(monkeypatch: pytest.MonkeyPatch, grids: dict[Mode, np.ndarray[Any, Any]]) -> list[Mode]:
    """Have each mode find a given map; returns the modes as they are tried."""
    tried: list[Mode] = []

    def made(_looker: Looker, mode: Mode, *_what: Any) -> np.ndarray[Any, Any]:
        tried.append(mode)
        return grids[mode]

    monkeypatch.setattr(Looker, "_made", made)
    return tried


def test_what_cannot_be_used_is_named() -> None:
    assert what_is_wrong(PEAK) == ""
    assert what_is_wrong(NOTHING) == "zero"
    assert what_is_wrong(BROKEN) == "not finite"
    assert what_is_wrong(np.where(PEAK > 0.5, np.inf, 0)) == "not finite"
    assert what_is_wrong(FLAT) == "flat: its entropy is 1.000 of the largest"
    assert what_is_wrong(np.ones((1, 1))) == ""  # a single cell is all there is


def test_flat_begins_above_95_percent_of_the_largest_entropy() -> None:
    """Of 16 cells, ``n`` alike and no others have an entropy of ln n."""
    for number, flat in ((13, False), (14, True)):
        grid = np.zeros(16)
        grid[:number] = 3.0
        assert (math.log(number) > 0.95 * math.log(16)) is flat
        assert bool(what_is_wrong(grid.reshape(4, 4))) is flat


@given(st.lists(st.floats(0, 1e6), min_size=16, max_size=16))
def test_a_grid_adds_up_to_one_whatever_it_is_made_of(values: list[float]) -> None:
    grid = spread(np.array(values).reshape(4, 4))
    assert grid.dtype == np.float32
    assert grid.sum() == pytest.approx(1.0, abs=1e-5)
    assert (grid >= 0).all()
    for broken in (NOTHING, BROKEN):
        np.testing.assert_allclose(spread(broken), 1 / 64)


def test_gating_by_hand() -> None:
    """One layer, two heads, two answer tokens, two cells."""
    shares = np.array([[[[[0.2, 0.4]], [[0.1, 0.1]]]], [[[[0.0, 0.5]], [[0.3, 0.1]]]]], dtype=np.float32)
    words = np.array([[[[0.1, 0.1], [0.0, 0.0]]], [[[0.3, 0.1], [0.0, 0.5]]]], dtype=np.float32)
    assert shares.shape == (2, 1, 2, 1, 2)
    assert words.shape == (2, 1, 2, 2)
    # Rows weigh 0.2, 0, 0.4 and 0.5: (0.04 + 0 + 0 + 0.15) / 4 and (0.08 + 0 + 0.2 + 0.05) / 4.
    np.testing.assert_allclose(mean_grid(gated(shares, words), (1.0,)), [[0.0475, 0.0825]], rtol=1e-6)
    np.testing.assert_allclose(mean_grid(shares, (1.0,)), [[0.15, 0.275]], rtol=1e-6)


def test_layers_count_by_their_weights() -> None:
    shares = np.stack([np.full((1, 1, 2, 2), 0.1), np.full((1, 1, 2, 2), 0.5)], axis=1).astype(np.float32)
    np.testing.assert_allclose(mean_grid(shares, (0.75, 0.25)), 0.2, rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "grids", "mode", "passed_over", "degenerate"),
    [
        (Mode.GATED, (PEAK, FLAT, FLAT, FLAT), Mode.GATED, (), False),
        (Mode.GATED, (NOTHING, PEAK, FLAT, FLAT), Mode.RAW, ("gated: zero",), False),
        (Mode.GATED, (BROKEN, NOTHING, PEAK, FLAT), Mode.GRADCAM, ("gated: not finite", "raw: zero"), False),
        (Mode.RAW, (PEAK, PEAK, PEAK, PEAK), Mode.RAW, (), False),
        (Mode.GRADCAM, (PEAK, PEAK, NOTHING, PEAK), Mode.ROLLOUT, ("gradcam: zero",), False),
        (Mode.ROLLOUT, (PEAK, PEAK, PEAK, PEAK), Mode.ROLLOUT, (), False),
        (Mode.GRADCAM, (PEAK, PEAK, BROKEN, NOTHING), Mode.ROLLOUT, ("gradcam: not finite", "rollout: zero"), True),
    ],
)
def test_the_next_mode_stands_in(  # noqa: PLR0917 - what is given and what is expected
    model: GemmaModel,
    image: InputImage,
    monkeypatch: pytest.MonkeyPatch,
    first: Mode,
    grids: tuple[np.ndarray[Any, Any], ...],
    mode: Mode,
    passed_over: tuple[str, ...],
    degenerate: bool,
) -> None:
    tried = with_grids(monkeypatch, dict(zip(Mode, grids, strict=True)))
    found = look(model, image, first)
    assert (found.mode, found.passed_over, found.degenerate) == (mode, passed_over, degenerate)
    assert tried == list(Mode)[list(Mode).index(first) : list(Mode).index(mode) + 1]
    kept = dict(zip(Mode, grids, strict=True))[mode]
    np.testing.assert_allclose(found.grid, spread(kept))


def test_a_flat_grid_is_kept_where_nothing_is_better(
    model: GemmaModel, image: InputImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly = FLAT + 0.01 * PEAK
    with_grids(monkeypatch, dict.fromkeys(Mode, nearly))
    found = look(model, image, Mode.GATED)
    assert found.degenerate
    assert [reason.partition(":")[0] for reason in found.passed_over] == list(Mode)
    np.testing.assert_allclose(found.grid, nearly / nearly.sum(), rtol=1e-6)


def test_without_a_term_nothing_gates(model: GemmaModel, image: InputImage) -> None:
    found = look(model, image, Mode.GATED, "What is wrong?")
    assert found.mode is Mode.RAW
    assert found.passed_over == ("gated: no medical term in the question",)
    assert found.terms == ()


def test_a_model_that_breaks_numbers_leaves_a_grid_that_says_nothing(model: GemmaModel, image: InputImage) -> None:
    plan = ReadingPlan(Mode.GATED, LAYERS, (0.5, 0.5), answer_tokens=3, max_new_tokens=4)
    features = torch.full((64, 48), float("nan"))
    (found,) = Looker(model, plan, TermList(("effusion",))).ask(features, image, ["An effusion?"])
    assert found.degenerate
    assert all(reason.endswith(("not finite", "the answer has no words")) for reason in found.passed_over)
    np.testing.assert_allclose(found.grid, 1 / 64)


def test_an_answer_without_words_reads_nothing(model: GemmaModel, image: InputImage) -> None:
    for profile, says in (({}, "<end_of_turn>"), ({"thinking": ("a", "b")}, "a")):
        asked = dataclasses.replace(model, profile=dataclasses.replace(model.profile, **profile))
        token = model.tokenizer.convert_tokens_to_ids(says)
        hook = model.network.lm_head.register_forward_hook(only(token))
        found = look(asked, image, Mode.RAW)
        hook.remove()
        assert (found.answer, found.tokens, found.by_head, found.image_share) == ("", (), None, 0.0)
        assert (found.degenerate, found.passed_over) == (True, ("raw: the answer has no words",))
        assert found.ended is (says == "<end_of_turn>")
        np.testing.assert_allclose(found.grid, 1 / 64)


def only(token: int) -> Any:
    """Have a model always say one token."""

    def hook(_head: Any, _hidden: Any, logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.full(logits.shape[:-1], token), logits.shape[-1]).float()

    return hook


def test_only_modes_that_are_needed_are_paid_for(
    model: GemmaModel, image: InputImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: Any) -> Relevance:
        raise AssertionError

    monkeypatch.setattr(module, "read_relevance", never)
    monkeypatch.setattr(module, "read_rollout", never)
    assert look(model, image, Mode.GATED).mode is Mode.GATED


@pytest.mark.parametrize("mode", list(Mode))
def test_prompts_are_held_until_their_answers_are_read_and_no_longer(
    model: GemmaModel, image: InputImage, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[weakref.ref[torch.Tensor]] = []

    def noted(*arguments: Any, **more: Any) -> list[Answer]:
        assert more["max_new_tokens"] == 4
        answers = generate(*arguments, **more)
        states.extend(weakref.ref(part) for answer in answers if answer.states for part in answer.states.layers[0])
        return answers

    monkeypatch.setattr(module, "generate", noted)
    monkeypatch.setattr(module, "what_is_wrong", lambda _grid: "")
    found = look(model, image, mode)
    assert (found.mode, len(states)) == (mode, 2)
    assert [state() for state in states] == [None, None]


@pytest.mark.parametrize("mode", list(Mode))
def test_sixteen_bits_are_read_too(image: InputImage, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "what_is_wrong", lambda _grid: "")
    half = sharpened(small_gemma(image=112, tokens=8, heads=4, key_heads=2, seed=3, dtype=torch.bfloat16))
    found = look(half, image, mode)
    assert found.mode is mode
    assert np.isfinite(found.grid).all()
    assert found.grid.max() > 1.05 / 64
    assert found.log_prob < 0


@pytest.mark.parametrize(
    ("text", "layers", "weights"),
    [
        ("global", (1, 3), (0.5, 0.5)),
        ("all", (0, 1, 2, 3), (0.25,) * 4),
        ("2", (2,), (1.0,)),
        (" 3, 0 ", (0, 3), (0.5, 0.5)),
        ("last:1", (3,), (1.0,)),
        ("last:3", (1, 2, 3), (1 / 6, 2 / 6, 3 / 6)),
        ("last:4", (0, 1, 2, 3), (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_layers_by_name(model: GemmaModel, text: str, layers: tuple[int, ...], weights: tuple[float, ...]) -> None:
    found, weighted = choose_layers(text, model)
    assert found == layers
    assert weighted == pytest.approx(weights)
    assert sum(weighted) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "say 'global'"),
        ("some", "say 'global'"),
        ("1,,2", "say 'global'"),
        ("-1", "say 'global'"),
        ("²", "say 'global'"),
        ("last:", "say 'global'"),
        ("last:x", "say 'global'"),
        ("last:0", "the model has 4"),
        ("last:5", "the model has 4"),
        ("4", "the model has layers 0 to 3"),
        ("1,1", "one is named twice"),
    ],
)
def test_layers_that_cannot_be_are_refused(model: GemmaModel, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        choose_layers(text, model)


def test_a_model_without_global_layers_says_so(model: GemmaModel) -> None:
    without = dataclasses.replace(model, sizes=dataclasses.replace(model.sizes, global_layers=()))
    with pytest.raises(ConfigError, match="has no global layers"):
        choose_layers("global", without)
