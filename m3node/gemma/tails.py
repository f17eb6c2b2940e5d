"""Reading on where a prompt ended: its keys and values are those that generation computed, and not computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from m3node.gemma.model import GemmaModel


@dataclass(frozen=True, slots=True, eq=False)
class PromptStates:
    """What a language model made of one prompt.

    Attributes
    ----------
    layers : tuple of (Tensor, Tensor)
        Keys and values, each of shape (key heads, tokens, head size), of all the prompt's tokens, also where a layer
        attends to a window only. Parts of what generation went on from: they hold it in memory.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]


def prompt_states(cache: Cache, padding: Sequence[int]) -> list[PromptStates]:
    """Take the states out of a cache into which prompts were read just now, and nothing else.

    Parameters
    ----------
    padding : sequence of int
        Pad tokens before each prompt.
    """
    layers: list[Any] = list(cache.layers)
    return [
        PromptStates(tuple((layer.keys[row, :, before:], layer.values[row, :, before:]) for layer in layers))
        for row, before in enumerate(padding)
    ]


def read_tails(
    model: GemmaModel,
    prompts: Sequence[Sequence[int]],
    states: Sequence[PromptStates],
    answers: Sequence[Sequence[int]],
    **more: Any,
) -> torch.Tensor:
    """Run the language model over answers, from each prompt's last token on.

    What each token sees is what it saw when the answer was made: all before it that is no padding, as far as the
    layer's window reaches. Whether image tokens saw each other both ways is settled in the prompts' own states.

    Parameters
    ----------
    answers : sequence of sequence of int
        Tokens behind the prompts; may be empty.
    **more
        For the language model; attention sees the prompts padded on the left, to the longest one's length.

    Returns
    -------
    Tensor, shape (sequences, tokens, hidden size)
        Hidden states before the vocabulary: number 0 is that of the prompt's last token, then those of the answer's.
    """
    network: Any = model.network
    tokenizer: Any = model.tokenizer
    before, longest = max(len(prompt) for prompt in prompts) - 1, max(len(answer) for answer in answers) + 1
    padding = tuple(before + 1 - len(prompt) for prompt in prompts)
    cache = Cache(layers=[DynamicLayer() for _ in states[0].layers])
    for number in range(len(states[0].layers)):
        # The last token's are computed anew: it is the query that produced the answer's first token.
        keys, values = (
            torch.stack(
                [
                    torch.nn.functional.pad(one.layers[number][part][:, :-1], (0, 0, left, 0))
                    for one, left in zip(states, padding, strict=True)
                ]
            )
            for part in (0, 1)
        )
        cache.update(keys, values, number)
    pad = tokenizer.pad_token_id or 0
    rows = [
        [prompt[-1], *answer, *[pad] * (longest - 1 - len(answer))]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    device = model.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    query = torch.arange(before, before + longest, device=device)[:, None]
    key = torch.arange(before + longest, device=device)
    seen = (key <= query) & (key >= torch.tensor(padding, device=device)[:, None, None])
    window = int(network.config.text_config.sliding_window)
    outputs = network.model(
        input_ids=torch.tensor(rows, device=device),
        attention_mask={
            "full_attention": seen[:, None],
            "sliding_attention": (seen & (query - key < window))[:, None],
        },
        position_ids=lengths[:, None] - 1 + torch.arange(longest, device=device),
        past_key_values=cache,
        use_cache=True,
        **more,
    )
    hidden: torch.Tensor = outputs.last_hidden_state
    return hidden
