"""The vision encoder, from pixels to the features that the language model is given, with steering in some layers."""

from __future__ import annotations

from typing import Any

import torch

from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel
from m3node.gemma.steering import steered_attention


@torch.no_grad()
def image_features(
    model: GemmaModel, pixels: torch.Tensor, bias: torch.Tensor | None, layers: tuple[int, int]
) -> torch.Tensor:
    """Encode a batch of images as the model's own ``get_image_features`` does, each with its own steering.

    Nothing of the model is changed and nothing is kept between calls: threads may share it.

    Parameters
    ----------
    model : GemmaModel
        The model.
    pixels : Tensor, shape (batch, 3, image, image)
        From `m3node.gemma.images.normalised`; brought to the model's device and dtype.
    bias : Tensor of float32, shape (batch, patches²), or None
        From `m3node.gemma.steering.steering_bias`. Images whose row is all zero are not steered: their features are
        those of the untouched model, bit by bit; None steers none.
    layers : tuple of int
        First and last layer that is steered, from 0, both included.

    Returns
    -------
    Tensor of the model's dtype, shape (batch, tokens², hidden)
        To be handed to the language model in place of the images.

    Raises
    ------
    ConfigError
        The encoder has no such layers.
    """
    first, last = layers
    count = model.sizes.vision_layers
    if not 0 <= first <= last < count:
        raise ConfigError(
            f"steered layers {first}–{last}: the vision encoder of {model.identity.name} has 0–{count - 1}"
        )
    tower: Any = model.network.model.vision_tower
    hidden: torch.Tensor = tower.embeddings(pixels.to(device=model.device, dtype=model.dtype))
    steered = _steered_rows(bias, len(hidden))
    chosen: torch.Tensor | None = None
    if bias is not None and steered:
        bias = bias.to(model.device)
        chosen = None if len(steered) == len(hidden) else torch.tensor(steered, device=model.device)
    for number, layer in enumerate(tower.encoder.layers):
        if bias is None or not steered or not first <= number <= last:
            hidden = layer(hidden, None)
        elif chosen is None:
            hidden = _steered_layer(layer, hidden, bias)
        else:
            # The whole batch as it would run without steering, so that kernels choose as they would; then the others.
            led = _steered_layer(layer, hidden[chosen], bias[chosen])
            hidden = layer(hidden, None).index_copy(0, chosen, led)
    projector: Any = model.network.model.multi_modal_projector
    features: torch.Tensor = projector(tower.post_layernorm(hidden))
    return features


def _steered_rows(bias: torch.Tensor | None, batch: int) -> list[int]:
    if bias is None:
        return []
    if len(bias) != batch:
        raise ValueError(f"{len(bias)} rows of steering for {batch} images")
    rows: list[int] = bias.ne(0).any(dim=1).nonzero()[:, 0].tolist()
    return rows


def _steered_layer(layer: Any, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``SiglipEncoderLayer.forward`` with the bias in its attention; its modules and weights are the model's own."""
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    shape = (*normed.shape[:2], -1, attention.head_dim)
    query, key, value = (
        projection(normed).view(shape).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    attended = steered_attention(query, key, value, bias, attention.scale).transpose(1, 2).flatten(2)
    hidden = hidden + attention.out_proj(attended)
    result: torch.Tensor = hidden + layer.mlp(layer.layer_norm2(hidden))
    return result
