"""Small Gemma3 models with random weights, of the real architecture: for what does not depend on what a model knows."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from m3node.gemma.model import GemmaModel, ModelIdentity
from m3node.gemma.profile import load_profile
from m3node.gemma.sizes import sizes_of

SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image>",
)
CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, with Gemma's special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image>",
        },
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=CHAT,
        padding_side="left",
    )


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
    tokenizer: Any = small_tokenizer()
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
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
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
        },
        vision_config={
            "hidden_size": vision_hidden,
            "intermediate_size": 2 * vision_hidden,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_heads,
            "image_size": image,
            "patch_size": patch,
            "vision_use_head": False,
        },
        mm_tokens_per_image=tokens**2,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        eos_token_id=tokenizer.eos_token_id,
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
