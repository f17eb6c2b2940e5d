"""Answers of many images at once: greedy, with left padding, and every image encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from m3node.errors import InferenceError
from m3node.gemma.cache import roomy_cache
from m3node.gemma.model import GemmaModel
from m3node.gemma.tails import PromptStates, prompt_states

BUCKET_TOKENS = 32
"""Prompts whose lengths differ by no more than this share a batch: padding is computed like everything else."""

_LOOK_EVERY = {"cpu": 1}
_LOOK_EVERY_ELSEWHERE = 8
"""Steps between two looks at who has ended: each look waits for a GPU, which then waits for its next step."""

_FEWER = 0.75
"""Rows that ended are dropped when no more than this share is left; dropping copies the others' keys and values."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes
    ----------
    token_ids : tuple of int
        Without the token that ended it.
    ended : bool
        It ended by itself, before the token limit.
    log_probs : tuple of float
        Natural logarithm of each token's probability when it was chosen; empty when that was not noted.
    states : PromptStates or None
        What the model made of the prompt, where that was to be kept; makes two answers no less equal.
    """

    token_ids: tuple[int, ...]
    ended: bool
    log_probs: tuple[float, ...] = ()
    states: PromptStates | None = field(default=None, compare=False, repr=False)

    def text(self, model: GemmaModel) -> str:
        """All of it, special tokens too."""
        return decode(model, self.token_ids)


@dataclass(frozen=True, slots=True, eq=False)
class PaddedBatch:
    """Sequences of different lengths side by side, padded on the left.

    Attributes
    ----------
    ids, positions, types : Tensor of int64, shape (sequences, tokens)
        Token ids; positions that count from 0 at each sequence's first token; 1 where the image stands, else 0.
    seen : Tensor of bool, same shape
        False where padding stands.
    padding : tuple of int
        Pad tokens before each sequence.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    types: torch.Tensor
    seen: torch.Tensor
    padding: tuple[int, ...]


def decode(model: GemmaModel, token_ids: Sequence[int]) -> str:
    """Text of some tokens. Nothing is left out: the tokens around thinking text are special in some tokenizers."""
    tokenizer: Any = model.tokenizer
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def end_tokens(model: GemmaModel) -> frozenset[int]:
    """Tokens that end an answer: those of the generation config, of the config, and the tokenizer's."""
    network: Any = model.network
    tokenizer: Any = model.tokenizer
    ends: set[int] = set()
    for source in (network.generation_config, network.config, network.config.text_config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ends.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(ends)


def generate(
    model: GemmaModel,
    prompts: Sequence[Sequence[int]],
    features: torch.Tensor,
    *,
    max_new_tokens: int,
    ended: Callable[[int], None] | None = None,
    keep_prompts: bool = False,
) -> list[Answer]:
    """Answer prompts, each about one image, always with the likeliest token.

    Parameters
    ----------
    model : GemmaModel
        Its own sampling settings are not used.
    prompts : sequence of sequence of int
        From `m3node.gemma.prompts.prompt_ids`.
    features : Tensor, shape (prompts, image tokens, hidden size)
        From `m3node.gemma.encoder.image_features`.
    max_new_tokens : int
        An answer that has not ended by then is cut off.
    ended : callable, optional
        Told, every few tokens, how many answers have ended; what it raises ends the work.
    keep_prompts : bool
        Leave each prompt's keys and values with its answer, for reading it back at little cost. They take as much
        memory as generation itself for as long as the answers are held.

    Returns
    -------
    list of Answer
        In order. In float32 an answer does not depend on what else is in the batch; in bfloat16 it may, since other
        matrix shapes round otherwise.
    """
    if len(prompts) != features.shape[0]:
        raise ValueError(f"{len(prompts)} prompts, but features of {features.shape[0]} images")
    answers: dict[int, Answer] = {}

    def told(more: int) -> None:
        if ended is not None:
            ended(len(answers) + more)

    for bucket in buckets([len(prompt) for prompt in prompts]):
        chosen = torch.tensor(bucket, device=features.device)
        batch = _generate(
            model,
            [prompts[index] for index in bucket],
            features[chosen],
            max_new_tokens,
            told,
            keep_prompts=keep_prompts,
        )
        answers.update(zip(bucket, batch, strict=True))
    return [answers[index] for index in range(len(prompts))]


def buckets(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Give groups of sequences, by index, whose lengths differ by at most `BUCKET_TOKENS`, shortest first."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if group and lengths[index] - lengths[group[0]] > BUCKET_TOKENS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def padded(model: GemmaModel, sequences: Sequence[Sequence[int]]) -> PaddedBatch:
    """Put sequences side by side on the model's device."""
    longest = max(len(sequence) for sequence in sequences)
    padding = tuple(longest - len(sequence) for sequence in sequences)
    tokenizer: Any = model.tokenizer
    pad = tokenizer.pad_token_id or 0
    rows = [[pad] * before + list(sequence) for before, sequence in zip(padding, sequences, strict=True)]
    ids = torch.tensor(rows, dtype=torch.int64, device=model.device)
    offsets = torch.arange(longest, device=model.device) - torch.tensor(padding, device=model.device)[:, None]
    seen = offsets >= 0
    config: Any = model.network.config
    # The image sees itself both ways. A pad token must not pass for a part of it, whatever its id; nor must the image's
    # token in an answer, where it was a word like any other.
    image = (ids == config.image_token_id) & seen
    image &= image.cumsum(dim=1) <= model.sizes.tokens**2
    return PaddedBatch(ids=ids, positions=offsets.clamp(min=0), types=image.to(torch.int64), seen=seen, padding=padding)


def read_in(model: GemmaModel, batch: PaddedBatch, features: torch.Tensor, **more: Any) -> torch.Tensor:
    """Run the language model over whole sequences with their images.

    Parameters
    ----------
    **more
        For the language model, such as ``past_key_values``.

    Returns
    -------
    Tensor, shape (sequences, tokens, hidden size)
        The last hidden states, before the vocabulary.

    Raises
    ------
    InferenceError
        The sequences do not hold one image each.
    """
    network: Any = model.network
    outputs = network.model(
        inputs_embeds=_embedded(model, batch, features),
        attention_mask=batch.seen.to(torch.int64),
        position_ids=batch.positions,
        token_type_ids=batch.types,
        **more,
    )
    hidden: torch.Tensor = outputs.last_hidden_state
    return hidden


def _embedded(model: GemmaModel, batch: PaddedBatch, features: torch.Tensor) -> torch.Tensor:
    """Put the features where the images stand. The library would put them wherever an image token does."""
    network: Any = model.network
    held, given = int(batch.types.sum()), features.shape[0] * features.shape[1]
    if held != given:
        raise InferenceError(f"the prompts hold {held} image tokens, and there are features for {given}")
    image = batch.types.bool()
    # The image's token may lie behind the vocabulary.
    words: torch.Tensor = network.get_input_embeddings()(batch.ids.masked_fill(image, 0))
    return words.masked_scatter(image[..., None], features.to(words.dtype))


@torch.inference_mode()
def _generate(
    model: GemmaModel,
    prompts: Sequence[Sequence[int]],
    features: torch.Tensor,
    max_new_tokens: int,
    told: Callable[[int], None],
    *,
    keep_prompts: bool,
) -> list[Answer]:
    network: Any = model.network
    config: Any = network.config.text_config
    batch = padded(model, prompts)
    count = batch.ids.shape[0]
    cache = roomy_cache(config)
    ends = torch.tensor(sorted(end_tokens(model)), device=model.device)
    said = torch.zeros(count, max_new_tokens, dtype=torch.int64, device=model.device)
    log_probs = torch.zeros(count, max_new_tokens, dtype=torch.float32, device=model.device)
    rows = torch.arange(count, device=model.device)
    ended = torch.zeros(count, dtype=torch.bool, device=model.device)
    look_every = _LOOK_EVERY.get(model.device.type, _LOOK_EVERY_ELSEWHERE)

    # A copy, so that the states of all the prompt are not held until the last answer ends.
    hidden = read_in(model, batch, features, past_key_values=cache, use_cache=True)[:, -1:].clone()
    states = prompt_states(cache, batch.padding) if keep_prompts else [None] * count
    seen, positions = batch.seen, batch.positions[:, -1:]
    padding = any(batch.padding)
    for step in range(max_new_tokens):
        logits = network.lm_head(hidden[:, -1]).float()
        highest, token = logits.max(dim=-1)
        said[rows, step] = token
        log_probs[rows, step] = highest - logits.logsumexp(dim=-1)
        ended |= torch.isin(token, ends)
        if step + 1 == max_new_tokens:
            break
        if (step + 1) % look_every == 0:
            going = (~ended).nonzero()[:, 0]
            told(count - going.numel())
            if going.numel() == 0:
                break
            if going.numel() <= _FEWER * ended.numel():
                cache.batch_select_indices(going)
                rows, token, ended, seen, positions = (part[going] for part in (rows, token, ended, seen, positions))
        seen = torch.cat([seen, seen.new_ones(seen.shape[0], 1)], dim=1)
        positions = positions + 1
        hidden = network.model(
            input_ids=token[:, None],
            # Masks by hand: one query sees all that is no padding, as far as its window reaches. Without padding
            # there is nothing to mask, and attention takes its fastest way.
            attention_mask={
                "full_attention": seen[:, None, None] if padding else None,
                "sliding_attention": seen[:, None, None, -int(config.sliding_window) :] if padding else None,
            },
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    answers = _answers(said, log_probs, end_tokens(model))
    return [replace(answer, states=its) for answer, its in zip(answers, states, strict=True)]


def _answers(said: torch.Tensor, log_probs: torch.Tensor, ends: frozenset[int]) -> list[Answer]:
    """Cut each row at its first end; what a row said after it ended, or never said, is not looked at."""
    answers = []
    for ids, chances in zip(said.tolist(), log_probs.tolist(), strict=True):
        last = next((at for at, token in enumerate(ids) if token in ends), None)
        answers.append(Answer(token_ids=tuple(ids[:last]), ended=last is not None, log_probs=tuple(chances[:last])))
    return answers
