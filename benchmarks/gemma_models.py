"""The models of the detector benchmark: MedGemma's sizes with random weights, and the package's small test model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from m3node.evaluation.test_model.network import byte_tokenizer, config_for
from m3node.gemma.loading import load_model
from m3node.gemma.model import GemmaModel, ModelIdentity
from m3node.gemma.profile import load_profile
from m3node.gemma.sizes import sizes_of
from m3node.settings import ModelSettings

LETTERS_A_TOKEN = 4
"""The stand-in tokenizer has a token for each byte, Gemma's one for about four letters of English: questions are cut so
that the prompt is as long as it would be."""


def trained_test_model(device: str) -> GemmaModel:
    """Load the small model of the package, as the detector does."""
    return load_model(ModelSettings(model="test", device=device))


def full_size_model(device: str, dtype: torch.dtype) -> GemmaModel:
    """Build MedGemma 1.5 4B's architecture with random weights, the projector filled, straight on the device.

    What it says means nothing; how long it takes does not depend on that.
    """
    tokenizer: Any = byte_tokenizer()
    config = full_size_config(tokenizer)
    torch.manual_seed(0)
    with torch.device(device):
        network = Gemma3ForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")
    # As it is made, it is zero, and no pixel would reach the language model.
    torch.nn.init.normal_(network.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    network.to(device).eval().requires_grad_(False)
    profile = load_profile("medgemma-1.5")
    return GemmaModel(
        network=network,
        tokenizer=tokenizer,
        profile=replace(
            profile,
            crop_prompt=profile.crop_prompt[: len(profile.crop_prompt) // LETTERS_A_TOKEN],
            slice_prompt=profile.slice_prompt[: len(profile.slice_prompt) // LETTERS_A_TOKEN],
            system=profile.system[: len(profile.system) // LETTERS_A_TOKEN],
        ),
        sizes=sizes_of(config),
        identity=ModelIdentity(name="random weights of MedGemma's size", revision="", weights="", is_test_model=True),
        device=torch.device(device),
        dtype=dtype,
    )


def full_size_config(tokenizer: Any) -> Gemma3Config:
    """The sizes of MedGemma 1.5 4B, with the special tokens of the stand-in tokenizer."""
    layers = 34
    return config_for(
        tokenizer,
        text={
            "vocab_size": 262_208,
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 1024,
            "layer_types": [
                "full_attention" if (number + 1) % 6 == 0 else "sliding_attention" for number in range(layers)
            ],
        },
        vision={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 896,
            "patch_size": 14,
        },
        image_tokens=256,
    )


def never_ending(model: GemmaModel) -> GemmaModel:
    """Take every token from a model that would end an answer, so that all are as long as they may be."""
    network: Any = model.network
    for holder in (network.generation_config, network.config, network.config.text_config):
        holder.eos_token_id = [network.config.text_config.vocab_size]  # one that it cannot say
    tokenizer: Any = model.tokenizer
    tokenizer.eos_token = None
    return model
