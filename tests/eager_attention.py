"""Attention by transformers' own eager implementation, one sequence at a time: what ours is held against."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from m3node.gemma.model import GemmaModel


@dataclass(frozen=True, slots=True, eq=False)
class Eager:
    """One pass.

    Attributes
    ----------
    attentions : tuple of Tensor, each of shape (1, heads, tokens, tokens)
        One a layer, as the library gave it, so that gradients reach it: rows are queries.
    log_probs : Tensor, shape (tokens, vocabulary)
        Of what comes next.
    """

    attentions: tuple[torch.Tensor, ...]
    log_probs: torch.Tensor

    @property
    def stacked(self) -> torch.Tensor:
        """Layers, heads, queries, keys."""
        return torch.cat(self.attentions).detach()


def eager_copy(model: GemmaModel) -> Any:
    """A copy of the network that attends eagerly."""
    network: Any = copy.deepcopy(model.network)
    network.set_attn_implementation("eager")
    return network


def eager_pass(network: Any, ids: Sequence[int], features: torch.Tensor) -> Eager:
    """Run an `eager_copy` over one sequence with its image, features of shape (image tokens, hidden size)."""
    whole = torch.tensor([list(ids)])
    output = network(
        input_ids=whole,
        token_type_ids=(whole == network.config.image_token_id).long(),
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features[None])},
        output_attentions=True,
    )
    return Eager(attentions=tuple(output.attentions), log_probs=output.logits[0].float().log_softmax(-1))


def sharpened(model: GemmaModel, by: float = 4.0) -> GemmaModel:
    """Copy a model of random weights, with attention that picks and chooses: as it is made, it is nearly flat."""
    network: Any = copy.deepcopy(model.network)
    for layer in network.model.language_model.layers:
        layer.self_attn.q_norm.weight.fill_(by)
    return dataclasses.replace(model, network=network)
