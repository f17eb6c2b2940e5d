"""An answer read back: how probable each of its tokens was, and what part of the image each came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from m3node.errors import ConfigError, InferenceError
from m3node.gemma.attention import AttentionRows, make_readable
from m3node.gemma.generation import Answer, buckets, padded, read_in
from m3node.gemma.heads import Heads
from m3node.gemma.model import GemmaModel
from m3node.gemma.tails import PromptStates, read_tails

_Ids = Sequence[int]

_LOGITS_AT_ONCE = 128
"""Rows of logits held at a time: 262,144 words in float32 are 1 MiB each."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one answer showed.

    Attributes
    ----------
    log_probs : ndarray of float32, shape (answer tokens,)
        Natural logarithm of each token's probability, given all before it.
    attention : ndarray of float32 or None
        For each wanted answer token, the share of attention that each image token got: shape (rows, tokens, tokens)
        with heads and layers averaged, else (rows, layers, heads, tokens, tokens). At most 1 over the image in all; the
        rest went to text. None when no layer was asked for.
    words : ndarray of float32 or None
        The same for the wanted tokens of the prompt: shape (rows, tokens), else (rows, layers, heads, tokens).
    """

    log_probs: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32] | None
    words: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """What is read together: prompt, the answer's tokens, the wanted ones' places in it, and those of words asked."""

    prompt: _Ids
    answer: _Ids
    rows: _Ids
    words: _Ids
    states: PromptStates | None


@torch.inference_mode()
def read_answers(  # noqa: PLR0917 - an answer and all that led to it
    model: GemmaModel,
    prompts: Sequence[Sequence[int]],
    features: torch.Tensor,
    answers: Sequence[Answer],
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    heads: Heads = "mean",
    *,
    words: Sequence[Sequence[int]] = (),
) -> list[Reading]:
    """Read answers in one pass over prompt and answer each, with the answer given.

    The prompts are not read in again where all the answers hold their states.

    Parameters
    ----------
    prompts, features
        As for `m3node.gemma.generation.generate`.
    answers : sequence of Answer
        What was said; need not come from this model.
    rows : sequence of sequence of int
        For each answer the tokens, by their place in it from 0, whose attention is wanted. A token's row is that of
        the query that *produced* it: the one at the token before it, which for token 0 is the prompt's last. It is
        where the model looked when it decided on the token, and what the token's probability comes from.
    layers : sequence of int
        Language layers whose attention is read; none for probabilities alone. Within a layer that attends to a window
        only, image tokens that lie further back got exactly 0.
    heads : Heads
        Average heads and layers (``mean``), or tell layers and heads apart: ``groups`` of query heads that share a key
        head, or ``all`` query heads.
    words : sequence of sequence of int
        For each prompt, places of other tokens than the image's whose share of attention is wanted, too; none at all
        when empty.

    Returns
    -------
    list of Reading
        In order.

    Raises
    ------
    ConfigError
        The model has no such layer.
    InferenceError
        A prompt has no image, or more than one.
    """
    if not len(prompts) == len(answers) == len(rows) == features.shape[0]:
        raise ValueError(
            f"{len(prompts)} prompts, {len(answers)} answers, {len(rows)} rows, {features.shape[0]} images"
        )
    if words and len(words) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, words of {len(words)}")
    if wrong := [layer for layer in layers if not 0 <= layer < model.sizes.language_layers]:
        raise ConfigError(
            f"the model has language layers 0 to {model.sizes.language_layers - 1}, none of number {wrong[0]}"
        )
    make_readable(model)
    readings: dict[int, Reading] = {}
    lengths = [len(prompt) + len(answer.token_ids) for prompt, answer in zip(prompts, answers, strict=True)]
    for bucket in buckets(lengths):
        asked = [
            _Asked(
                prompt=prompts[index],
                answer=answers[index].token_ids,
                rows=rows[index],
                words=words[index] if words else (),
                states=answers[index].states,
            )
            for index in bucket
        ]
        chosen = torch.tensor(bucket, device=features.device)
        readings.update(zip(bucket, _read(model, asked, features[chosen], layers, heads), strict=True))
    return [readings[index] for index in range(len(prompts))]


def image_span(model: GemmaModel, prompt: Sequence[int]) -> tuple[int, int]:
    """Find the image in a prompt: its first token and the one behind its last, by the tokens themselves.

    Raises
    ------
    InferenceError
        There is no image, or it is not one run of as many tokens as the model has for an image.
    """
    config: Any = model.network.config
    places = [at for at, token in enumerate(prompt) if token == config.image_token_id]
    count = model.sizes.tokens**2
    if len(places) != count or places[-1] - places[0] + 1 != count:
        raise InferenceError(f"a prompt holds {len(places)} image tokens, and not {count} in one run")
    return places[0], places[-1] + 1


def _read(
    model: GemmaModel, asked: Sequence[_Asked], features: torch.Tensor, layers: Sequence[int], heads: Heads
) -> list[Reading]:
    states = [one.states for one in asked if one.states is not None]
    read_on = len(states) == len(asked)
    if read_on:
        longest = max(len(one.prompt) for one in asked)
        padding, starts = [longest - len(one.prompt) for one in asked], [0] * len(asked)
    else:
        # The last token's own state decides on nothing that was said.
        batch = padded(model, [[*one.prompt, *one.answer[:-1]] for one in asked])
        # Where the query stands that produced each answer's first token.
        padding = list(batch.padding)
        starts = [before + len(one.prompt) - 1 for before, one in zip(padding, asked, strict=True)]
    wanted = AttentionRows(*_places(model, padding, asked, starts), layers, heads) if layers else None
    more = {} if wanted is None else {"attention_rows": wanted}
    if read_on:
        prompts, answers = [one.prompt for one in asked], [one.answer[:-1] for one in asked]
        hidden = read_tails(model, prompts, states, answers, **more)
    else:
        hidden = read_in(model, batch, features, use_cache=False, **more)
    log_probs = _log_probs(model, hidden, starts, [one.answer for one in asked])
    if wanted is None:
        return [Reading(log_probs=found, attention=None, words=None) for found in log_probs]
    side = model.sizes.tokens
    shares = wanted.result().cpu().numpy()
    attention, words = shares[..., : side**2], shares[..., side**2 :]
    return [
        Reading(
            log_probs=found,
            attention=attention[at, : len(one.rows)].reshape(len(one.rows), *attention.shape[2:-1], side, side),
            words=words[at, : len(one.rows), ..., : len(one.words)],
        )
        for at, (found, one) in enumerate(zip(log_probs, asked, strict=True))
    ]


def _places(
    model: GemmaModel, padding: Sequence[int], asked: Sequence[_Asked], starts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the wanted queries stand among those of the pass, and images and wanted words among its keys."""
    most, most_words = max(len(one.rows) for one in asked), max(len(one.words) for one in asked)
    queries: list[list[int]] = []
    keys: list[list[int]] = []
    for one, before, start in zip(asked, padding, starts, strict=True):
        if not all(0 <= row < len(one.answer) for row in one.rows):
            raise ValueError(f"an answer of {len(one.answer)} tokens has no row {max(one.rows)}")
        if not all(0 <= place < len(one.prompt) for place in one.words):
            raise ValueError(f"a prompt of {len(one.prompt)} tokens has no token {max(one.words)}")
        first, last = image_span(model, one.prompt)
        # Fewer rows or words than others have are filled up with one that nobody looks at.
        queries.append([start + row for row in one.rows] + [start] * (most - len(one.rows)))
        told = [before + place for place in one.words] + [before + first] * (most_words - len(one.words))
        keys.append([*range(before + first, before + last), *told])
    return (
        torch.tensor(queries, dtype=torch.int64, device=model.device).reshape(len(asked), most),
        torch.tensor(keys, dtype=torch.int64, device=model.device),
    )


def _log_probs(
    model: GemmaModel, hidden: torch.Tensor, starts: Sequence[int], answers: Sequence[_Ids]
) -> list[npt.NDArray[np.float32]]:
    """Logits of answer tokens only, some at a time: for all positions they would be the largest tensor by far."""
    network: Any = model.network
    lengths = [len(answer) for answer in answers]
    places = [
        (row, start + at)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True))
        for at in range(length)
    ]
    said = torch.tensor([token for answer in answers for token in answer], dtype=torch.int64, device=model.device)
    where = torch.tensor(places, dtype=torch.int64, device=model.device).reshape(-1, 2)
    found = torch.zeros(len(places), dtype=torch.float32, device=model.device)
    for first in range(0, len(places), _LOGITS_AT_ONCE):
        part = slice(first, first + _LOGITS_AT_ONCE)
        logits = network.lm_head(hidden[where[part, 0], where[part, 1]]).float()
        found[part] = logits.gather(-1, said[part, None])[:, 0] - logits.logsumexp(dim=-1)
    return np.split(found.cpu().numpy(), np.cumsum(lengths)[:-1])
