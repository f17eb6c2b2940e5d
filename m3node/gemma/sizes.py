"""The sizes of a model, from its own config: nothing about MedGemma is assumed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from m3node.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Sizes of a Gemma3 with a SigLIP vision encoder.

    Attributes
    ----------
    image : int
        Side of the input image in pixels.
    patch : int
        Side of a patch in pixels.
    patches : int
        Patches a side; the encoder's sequence is its square.
    tokens : int
        Image tokens a side, after pooling; the language model sees its square.
    vision_layers, language_layers : int
        Layers of each.
    global_layers : tuple of int
        Language layers that attend to everything before; the others only within the window.
    window : int
        Sliding window of the other layers, in tokens.
    query_heads, key_heads : int
        Query heads of the language model, and the key and value heads they share.
    """

    image: int
    patch: int
    patches: int
    tokens: int
    vision_layers: int
    language_layers: int
    global_layers: tuple[int, ...]
    window: int
    query_heads: int
    key_heads: int


def sizes_of(config: Any) -> ModelSizes:
    """Read the sizes from a ``Gemma3Config``.

    Raises
    ------
    ConfigError
        The config is of another kind of model, or its image does not divide evenly.
    """
    try:
        vision, text = config.vision_config, config.text_config
        image, patch, count = int(vision.image_size), int(vision.patch_size), int(config.mm_tokens_per_image)
        layer_types = tuple(text.layer_types)
        patches, tokens = image // patch, math.isqrt(count)
        sizes = ModelSizes(
            image=image,
            patch=patch,
            patches=patches,
            tokens=tokens,
            vision_layers=int(vision.num_hidden_layers),
            language_layers=int(text.num_hidden_layers),
            global_layers=tuple(number for number, kind in enumerate(layer_types) if kind == "full_attention"),
            window=int(text.sliding_window),
            query_heads=int(text.num_attention_heads),
            key_heads=int(text.num_key_value_heads),
        )
    except AttributeError as error:
        raise ConfigError(f"the model is no Gemma3 with a vision encoder: its config has no {error.name}") from error
    if tokens * tokens != count or patches * patch != image or patches % tokens:
        raise ConfigError(
            f"the model's image of {image} px, patches of {patch} px and {count} image tokens do not fit together"
        )
    return sizes
