"""Keys and values of what was read and written so far, with room to write on.

transformers' own `DynamicCache` makes a new tensor of everything for every token: with 120 answers of 1,000 tokens that
is some 20 GB copied a step. Its `StaticCache` copies nothing, but every step attends to the longest answer's length.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 128
"""Tokens that a layer makes room for at a time."""


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, in tensors with room behind what is filled.

    Parameters
    ----------
    window : int or None
        Tokens that a query sees, itself among them; None for all before it.
    """

    def __init__(self, window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window
        self.is_sliding = window is not None
        self.seen = 0
        self.filled = 0
        self._stores: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the states of new tokens; returns those that they may see, [batch, key heads, tokens, head size]."""
        new = key_states.shape[-2]
        length, _ = self.get_mask_sizes(new)
        self._make_room(key_states, value_states, keep=length - new)
        assert self._stores is not None
        last = self.filled + new
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[:, :, self.filled : last] = states
        self.seen, self.filled, self.is_initialized = self.seen + new, last, True
        self.keys, self.values = (store[:, :, last - length : last] for store in self._stores)
        return self.keys, self.values

    def _make_room(self, key_states: torch.Tensor, value_states: torch.Tensor, *, keep: int) -> None:
        batch, heads, new, _ = key_states.shape
        if self._stores is not None and self.filled + new <= self._stores[0].shape[-2]:
            return
        old = self._stores
        size = -(-(keep + new + ROOM) // ROOM) * ROOM
        stores = []
        for at, states in enumerate((key_states, value_states)):
            store = states.new_empty(batch, heads, size, states.shape[-1])
            if old is not None:
                store[:, :, :keep] = old[at][:, :, self.filled - keep : self.filled]
            stores.append(store)
        self._stores = stores[0], stores[1]
        self.filled = keep

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many tokens the next ones may see, with themselves, and how many lie before those."""
        visible = self.seen if self.window is None else min(self.seen, self.window - 1)
        return visible + query_length, self.seen - visible

    def get_seq_length(self) -> int:
        """Return how many tokens were added."""
        return self.seen

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some of the rows only."""
        if self._stores is not None:
            # Views of what is let go, which would hold it until this layer's next update.
            self.keys = self.values = None
            keys, values = (store[indices] for store in self._stores)
            self._stores = keys, values


def roomy_cache(text_config: Any) -> Cache:
    """Make an empty cache for a Gemma3 text config."""
    return Cache(
        layers=[
            RoomyLayer(int(text_config.sliding_window) if kind == "sliding_attention" else None)
            for kind in text_config.layer_types
        ]
    )
