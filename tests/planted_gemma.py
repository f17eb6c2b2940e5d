"""A Gemma3 whose weights are written by hand, so that it must look at the brightest part of an image.

The vision encoder's layers do nothing; its patch embedding turns brightness into a direction. What the language model
is given of a patch points along ``_BRIGHT`` where it is bright and along ``_DARK`` where it is not; every text token
points along ``_TEXT``. Keys keep that direction, queries ask for ``_BRIGHT`` and, less, for ``_TEXT``: so attention
goes to bright patches first, then to words, and to dark patches last.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from m3node.gemma.model import GemmaModel
from tests.small_gemma import small_gemma

_TEXT, _BRIGHT, _DARK = 0, 1, 2
"""Numbers of a token's state."""

_SIZE = 16
"""Of a head, as `small_gemma` has it."""

_SLOW = (_SIZE // 2 - 1, _SIZE - 1, _SIZE // 2 - 2)
"""Numbers of a head that positions turn least, one for each of the three directions."""

_SAYS = "y"


def planted_gemma(*, tokens: int = 8, sharpness: float = 6.0) -> GemmaModel:
    """Make the model; ``sharpness`` is the logit between bright and dark."""
    model = small_gemma(image=14 * 2 * tokens, tokens=tokens, vision_layers=1, layers=2, window=4096, seed=77)
    network: Any = copy.deepcopy(model.network)
    for weights in network.parameters():
        weights.zero_()
    _write_encoder(network.model)
    _write_language(network, model, sharpness)
    identity = dataclasses.replace(model.identity, name="weights written by hand")
    return dataclasses.replace(model, network=network, identity=identity)


def _write_encoder(parts: Any) -> None:
    tower, projector = parts.vision_tower, parts.multi_modal_projector
    # Pixels run from -1 to 1. Number 0 becomes their mean, number 1 its opposite.
    patches = tower.embeddings.patch_embedding.weight
    patches[0] = 1.0 / patches[0].numel()
    patches[1] = -1.0 / patches[1].numel()
    # Against a constant, or the layer norm would make the slightest grey as strong as white.
    tower.embeddings.patch_embedding.bias[2], tower.embeddings.patch_embedding.bias[3] = 1.0, -1.0
    tower.post_layernorm.weight.fill_(1.0)
    # Bright is (0) + (2), dark is (1) + (2): each from 0 to about twice the constant.
    weights = projector.mm_input_projection_weight
    weights[0, _BRIGHT] = weights[2, _BRIGHT] = weights[1, _DARK] = weights[2, _DARK] = 1.0


def _write_language(network: Any, model: GemmaModel, sharpness: float) -> None:
    language = network.model.language_model
    # Every text token is the same but for its length; the longest is the likeliest (vocabulary and embedding are one).
    assert network.lm_head.weight is language.embed_tokens.weight
    language.embed_tokens.weight[:, _TEXT] = 1.0
    language.embed_tokens.weight[model.tokenizer.convert_tokens_to_ids(_SAYS), _TEXT] = 2.0
    for layer in language.layers:
        attention = layer.self_attn
        attention.q_norm.weight.fill_(sharpness)
        for head in range(model.sizes.query_heads):
            first = head * _SIZE
            attention.q_proj.weight[first + _SLOW[_BRIGHT], _TEXT] = 1.0
            attention.q_proj.weight[first + _SLOW[_TEXT], _TEXT] = 0.8
        for head in range(model.sizes.key_heads):
            first = head * _SIZE
            for number, slow in enumerate(_SLOW):
                attention.k_proj.weight[first + slow, number] = 1.0
