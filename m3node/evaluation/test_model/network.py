"""The test model before it has learnt anything: its tokenizer, its sizes, its first weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from m3node.gemma.loading import TEST_MODEL
from m3node.gemma.model import GemmaModel, ModelIdentity
from m3node.gemma.profile import load_profile
from m3node.gemma.sizes import sizes_of

OPENING = "Final Answer:\n```json\n["
BOX = '{"box_2d": ['
COMMA = ", "
LABEL = '], "label": "liver lesion"}'
CLOSING = "]\n```"

GLUE = (OPENING, BOX, COMMA, LABEL, CLOSING)
"""What stands between the numbers of an answer; one token each, so that answers are short."""

_SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image>",
)
_CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer of the test model, which has the glue."""
    return byte_tokenizer(GLUE)


def byte_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Make a tokenizer: Gemma's special tokens, single bytes (so single digits, as Gemma has them), and some words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate([*_SPECIAL, *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in words])
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
        chat_template=_CHAT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_config(tokenizer: Any) -> Gemma3Config:
    """Lay out a Gemma3 of 1.5 million parameters.

    Every second language layer attends globally. The others see 128 tokens back: an answer's first box still has the
    whole image in their window, its third has lost a part of it, as with the published sizes.
    """
    return config_for(
        tokenizer,
        text={
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            "max_position_embeddings": 1024,
        },
        vision={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 14,
        },
        image_tokens=64,
    )


def config_for(
    tokenizer: Any, *, text: Mapping[str, Any], vision: Mapping[str, Any], image_tokens: int
) -> Gemma3Config:
    """Lay out a Gemma3 for a `byte_tokenizer`.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Says the size of the vocabulary, where ``text`` does not, and the numbers of the special tokens.
    text, vision : mapping
        Sizes of the language model and of the vision encoder, by their names in its configuration.
    image_tokens : int
        Tokens that an image becomes: a square number.
    """
    token = tokenizer.convert_tokens_to_ids
    ends = [tokenizer.eos_token_id, token("<end_of_turn>")]
    whole: dict[str, Any] = {"eos_token_id": ends}
    return Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": ends,
            "bos_token_id": tokenizer.bos_token_id,
            **text,
        },
        vision_config={**vision, "vision_use_head": False},
        mm_tokens_per_image=image_tokens,
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image>"),
        **whole,
    )


def new_model(seed: int) -> GemmaModel:
    """Make the model with random weights, but for two that slow learning down or stop it.

    The projector is filled: it starts at zero, and no pixel would get through. Patches' positions start as waves along
    rows and columns, so that the encoder need not learn first what a place is.
    """
    tokenizer: Any = new_tokenizer()
    config: Any = new_config(tokenizer)
    config._attn_implementation = "sdpa"
    torch.manual_seed(seed)
    network = Gemma3ForConditionalGeneration(config)
    projector: Any = network.model.multi_modal_projector
    torch.nn.init.normal_(projector.mm_input_projection_weight, std=config.vision_config.hidden_size**-0.5)
    positions: Any = network.model.vision_tower.embeddings.position_embedding.weight
    with torch.no_grad():
        positions.copy_(_waves(config.vision_config.image_size // config.vision_config.patch_size, positions.shape[1]))
    generation: Any = network.generation_config
    generation.do_sample, generation.max_new_tokens = False, load_profile(TEST_MODEL).max_new_tokens
    generation.eos_token_id, generation.pad_token_id = config.eos_token_id, tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id
    return GemmaModel(
        network=network,
        tokenizer=tokenizer,
        profile=load_profile(TEST_MODEL),
        sizes=sizes_of(config),
        identity=ModelIdentity(name="untrained test model", revision="", weights=f"seed {seed}", is_test_model=True),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def _waves(side: int, width: int) -> torch.Tensor:
    """Positions of a square of patches: half of the numbers for the row, half for the column; shape (side², width)."""
    middles = (torch.arange(side) + 0.5) / side
    angles = torch.pi / 2 * middles[:, None] * torch.logspace(0.0, math.log10(side), width // 4)
    one = 0.5 * torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([one.repeat_interleave(side, dim=0), one.repeat(side, 1)], dim=1)
