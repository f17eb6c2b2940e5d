"""Small Gemma3 models with random weights, of the real architecture: for what does not depend on what a model knows."""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import Gemma3ForConditionalGeneration

from m3node.evaluation.test_model.network import byte_tokenizer, config_for
from m3node.gemma.model import GemmaModel, ModelIdentity
from m3node.gemma.profile import load_profile
from m3node.gemma.sizes import sizes_of


@functools.cache
def small_gemma(
    *,
    image: int = 56,
    patch: int = 14,
    tokens: int = 2,
    vision_layers: int = 3,
    vision_hidden: int = 32,
    vision_heads: int = 4,
    layers: int = 4,
    heads: int = 4,
    key_heads: int = 2,
    window: int = 64,
    global_every: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> GemmaModel:
    """Make a model; every ``global_every``-th language layer attends globally, and pixels do reach the logits."""
    # For so little work, threads that wait for each other on a busy machine cost a hundred times what they save.
    torch.set_num_threads(1)
    tokenizer = byte_tokenizer()
    config: Any = config_for(
        tokenizer,
        text={
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": window,
            "layer_types": [
                "full_attention" if (number + 1) % global_every == 0 else "sliding_attention"
                for number in range(layers)
            ],
        },
        vision={
            "hidden_size": vision_hidden,
            "intermediate_size": 2 * vision_hidden,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_heads,
            "image_size": image,
            "patch_size": patch,
        },
        image_tokens=tokens**2,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    network = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(network.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    network.to(dtype).eval().requires_grad_(False)
    return GemmaModel(
        network=network,
        tokenizer=tokenizer,
        profile=load_profile("test"),
        sizes=sizes_of(config),
        identity=ModelIdentity(name="random weights", revision="", weights=f"seed {seed}", is_test_model=True),
        device=torch.device("cpu"),
        dtype=dtype,
    )
