"""Attention rows out of a running language model: sdpa as always, and a softmax for the wanted rows alone.

The implementation is registered with transformers under a name of its own, once, at import. What is wanted of one pass
travels through it as an argument; nothing is kept between passes, and two threads do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from m3node.errors import InferenceError
from m3node.gemma.heads import Heads
from m3node.gemma.model import GemmaModel

IMPLEMENTATION = "m3node_sdpa"
"""Name of the attention implementation."""

ROWS_AT_ONCE = 64
"""Rows whose softmax over the whole sequence is held at a time, for each sequence and head."""


class TakesLayers(Protocol):
    """Is shown the layers of a pass, one after the other."""

    def take(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float
    ) -> None:
        """Look at a layer; `AttentionRows.take` says at what."""
        ...


class AttendsRows(Protocol):
    """Is shown the layers of a pass and what comes out of their attention, and may put something else there."""

    def attend(  # noqa: PLR0917 - what an attention layer is made of
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        attended: torch.Tensor,
    ) -> torch.Tensor:
        """Return what the layer goes on with, [sequences, tokens, query heads, head size]."""
        ...


class AttentionRows:
    """Collects rows of one pass.

    Parameters
    ----------
    queries : Tensor of int64, shape (sequences, rows)
        Positions in the padded sequence whose rows are wanted.
    keys : Tensor of int64, shape (sequences, keys)
        Positions whose share is kept; the softmax is over the whole sequence.
    layers : sequence of int
        Layers that are read, from 0.
    heads : Heads
        What is told apart.
    """

    def __init__(self, queries: torch.Tensor, keys: torch.Tensor, layers: Sequence[int], heads: Heads) -> None:
        self._queries, self._keys, self._heads = queries, keys, heads
        self._layers = tuple(layers)
        self._taken: dict[int, torch.Tensor] = {}
        self._sum: torch.Tensor | None = None
        self._count = 0

    def take(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float
    ) -> None:
        """Take a layer's rows, if it is wanted.

        Parameters
        ----------
        query, key : Tensor, shapes (sequences, query heads, tokens, head size) and (sequences, key heads, …)
            After normalisation and rotation.
        mask : Tensor or None
            As sdpa takes it: bool, True where a query sees a key, or added to the logits; causal when None.
        """
        if layer not in self._layers:
            return
        parts = [self._shares(query, key, mask, scaling, part) for part in self._queries.split(ROWS_AT_ONCE, dim=1)]
        shares = torch.cat(parts, dim=1)
        self._count += 1
        if self._heads == "mean":
            shares = shares.mean(dim=(2, 3))
            self._sum = shares if self._sum is None else self._sum + shares
        else:
            self._taken[layer] = shares.mean(dim=3) if self._heads == "groups" else shares.flatten(2, 3)

    def result(self) -> torch.Tensor:
        """Return the rows: [sequences, rows, keys] for ``mean``, else [sequences, rows, layers, heads, keys].

        Raises
        ------
        InferenceError
            The pass did not go through this implementation, or the model lacks a layer.
        """
        if self._count != len(set(self._layers)):
            raise InferenceError(f"attention was read in {self._count} of {len(set(self._layers))} layers")
        if self._sum is not None:
            return self._sum / self._count
        return torch.stack([self._taken[layer] for layer in self._layers], dim=2)

    def _shares(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float, rows: torch.Tensor
    ) -> torch.Tensor:
        """Shares of some rows: [sequences, rows, key heads, heads a group, keys], in float32."""
        shares = softmax_rows(query, key, mask, scaling, rows)
        columns = self._keys[:, None, None, None, :].expand(*shares.shape[:-1], -1)
        return shares.gather(-1, columns).permute(0, 3, 1, 2, 4)


def softmax_rows(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float, rows: torch.Tensor
) -> torch.Tensor:
    """Compute attention for some queries alone.

    Parameters
    ----------
    query, key, mask, scaling
        As for `AttentionRows.take`.
    rows : Tensor of int64, shape (sequences, rows)
        Where the queries stand.

    Returns
    -------
    Tensor of float32, shape (sequences, key heads, query heads a key head, rows, tokens)
        Each row adds up to 1.
    """
    batch, query_heads = query.shape[:2]
    key_heads, tokens = key.shape[1:3]
    sequences = torch.arange(batch, device=query.device)[:, None]
    # [sequences, rows, query heads, size] -> [sequences, key heads, heads a group × rows, size]
    wanted = query.transpose(1, 2)[sequences, rows]
    wanted = wanted.unflatten(2, (key_heads, query_heads // key_heads)).permute(0, 2, 3, 1, 4)
    # In single precision, as the kernel that made the answer adds up: 16 bits would round shares by some percent.
    logits = torch.matmul(wanted.flatten(2, 3).float(), key.float().transpose(2, 3)) * scaling
    logits = logits.unflatten(2, (query_heads // key_heads, rows.shape[1]))
    if mask is None:
        logits = logits.masked_fill(
            torch.arange(tokens, device=query.device) > rows[:, None, None, :, None], float("-inf")
        )
    else:
        seen = mask[:, 0, :, :tokens].expand(batch, -1, -1)[sequences, rows][:, None, None]
        logits = logits.masked_fill(~seen, float("-inf")) if seen.dtype == torch.bool else logits + seen
    shares: torch.Tensor = logits.softmax(dim=-1)
    return shares


def attention_forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    attention_rows: TakesLayers | None = None,
    attention_graph: AttendsRows | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Do as transformers' sdpa; show the layer to what comes with the model's arguments.

    Parameters
    ----------
    attention_rows : TakesLayers, optional
        Looks on.
    attention_graph : AttendsRows, optional
        Has the last word on what comes out.
    """
    scaling: float = kwargs["scaling"]
    if attention_rows is not None:
        attention_rows.take(module.layer_idx, query, key, attention_mask, scaling)
    attended: torch.Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)[0]
    if attention_graph is not None:
        attended = attention_graph.attend(module.layer_idx, query, key, value, attention_mask, scaling, attended)
    return attended, None


AttentionInterface.register(IMPLEMENTATION, attention_forward)
# A name that is not registered here, too, gets no mask at all, without a word.
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def make_readable(model: GemmaModel) -> None:
    """Have the language model use this implementation from now on; its answers stay the same to the bit."""
    config: Any = model.network.config
    config.text_config._attn_implementation = IMPLEMENTATION
