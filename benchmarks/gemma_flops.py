"""How much arithmetic a Gemma3 with a SigLIP encoder needs, counted from its config, and how much a chip can do.

A multiplication with its addition counts as two. What is counted are the matrix products: patch embedding, projections,
attention (scores and sums, every query with every key), MLPs, projector. Norms, softmax, activations and the vocabulary
(one row a sequence) are not. Attention counts as the full square in the language model too: with an image that is seen
both ways it gets a mask, and kernels with a mask compute all of it. At 430 tokens that is 2 % of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

DENSE_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""Dense bf16 operations a second from the makers' data sheets, without sparsity, by a part of what torch calls the
device; the first that fits counts. "H100" alone is the SXM5 module."""

MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}
MATMUL_RUNS = 10


@dataclass(frozen=True, slots=True)
class Peak:
    """What a device can do.

    Attributes
    ----------
    flops : float
        Operations a second.
    source : str
        Where the figure is from.
    """

    flops: float
    source: str


def encoder_flops(config: Any) -> float:
    """Count one image's way through the vision encoder and the projector."""
    vision, text = config.vision_config, config.text_config
    tokens, hidden = (vision.image_size // vision.patch_size) ** 2, vision.hidden_size
    embedding = 2 * tokens * vision.num_channels * vision.patch_size**2 * hidden
    layer = 8 * tokens * hidden**2 + 4 * tokens**2 * hidden + 4 * tokens * hidden * vision.intermediate_size
    projector = 2 * config.mm_tokens_per_image * hidden * text.hidden_size
    return float(embedding + vision.num_hidden_layers * layer + projector)


def prefill_flops(config: Any, tokens: int) -> float:
    """Count one prompt's way through the language model, without the vocabulary."""
    text = config.text_config
    hidden, queries = text.hidden_size, text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    projections = 2 * hidden * (2 * queries + 2 * keys) + 6 * hidden * text.intermediate_size
    return float(text.num_hidden_layers * (tokens * projections + 4 * tokens**2 * queries))


def peak_of(
    device: torch.device, dtype: torch.dtype, told_tflops: float | None, clock: Callable[[], float] = time.perf_counter
) -> Peak:
    """Take what was told, what the maker says of this chip, or else what one large matrix product reaches on it."""
    if told_tflops is not None:
        return Peak(told_tflops * 1e12, "as told")
    if device.type == "cuda" and dtype is torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, flops in DENSE_BF16.items():
            if part in name:
                return Peak(flops, f"data sheet, {name}, dense bf16")
    return _of_a_product(device, dtype, clock)


def _of_a_product(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> Peak:
    side = MATMUL_SIDE[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    left @ right
    best = float("inf")
    for _ in range(MATMUL_RUNS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = clock()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - started)
    name = str(dtype).removeprefix("torch.")
    return Peak(2 * side**3 / best, f"best of {MATMUL_RUNS} products of {side}×{side}, {name}, on this machine")
