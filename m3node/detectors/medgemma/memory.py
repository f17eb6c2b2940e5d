"""How many views are answered together."""

from __future__ import annotations

from typing import Any

import torch

from m3node.gemma.cache import ROOM
from m3node.gemma.model import GemmaModel

ON_CPU = 16
"""More at once are no faster on a CPU, and progress would come in larger jumps."""

ON_CPU_LARGE = 4
"""For models of `LARGE` parameters and more, with which a view takes a minute and more on a CPU."""

LARGE = 100_000_000

MOST = 256
"""A GPU is busy with so many."""

_SHARE = 0.7
"""Of the free memory; the rest is for what is not foreseen here. What still does not fit is halved when it fails."""


def views_that_fit(model: GemmaModel, prompt_tokens: int, max_new_tokens: int) -> int:
    """Estimate how many views of the longest answer fit into the memory that is free now."""
    if model.device.type != "cuda":
        network: Any = model.network
        return ON_CPU if network.num_parameters() < LARGE else ON_CPU_LARGE
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(MOST, int(_SHARE * free / bytes_a_view(model, prompt_tokens, max_new_tokens))))


def bytes_a_view(model: GemmaModel, prompt_tokens: int, max_new_tokens: int) -> int:
    """Estimate a view's memory: keys and values to the end of the longest answer, and reading in the prompt."""
    network: Any = model.network
    text = network.config.text_config
    tokens = prompt_tokens + max_new_tokens
    kept = sum(
        min(tokens, text.sliding_window) + ROOM if kind == "sliding_attention" else tokens + ROOM
        for kind in text.layer_types
    )
    number = model.dtype.itemsize
    states = 2 * kept * text.num_key_value_heads * text.head_dim * number
    # Inside a layer: its input, and what the widest part makes of it, twice; masks; then one row of logits.
    passing = prompt_tokens * (4 * text.hidden_size + 3 * text.intermediate_size) * number + 2 * prompt_tokens**2
    return int(states + passing + 3 * 4 * text.vocab_size)
