"""Plain ways to ask a Gemma3 about crops, with nothing but transformers and PIL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from m3node.detectors.protocols import View
from m3node.gemma.images import SquareFrame, square_coverage
from m3node.gemma.model import GemmaModel
from m3node.gemma.steering import organ_patches, steering_bias
from m3node.settings import SteeringMode, SteeringSettings

WINDOWS = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))

Ids = list[list[int]]


def picture(view: View, side: int) -> npt.NDArray[np.uint8]:
    """Three windows, a zero-padded square, PIL's resize: one image at a time, the usual lines of code."""
    channels = [np.clip((view.hu.astype(np.float32) - low) / (high - low), 0, 1) * 255 for low, high in WINDOWS]
    image = np.round(np.stack(channels, axis=-1)).astype(np.uint8)
    rows, columns = view.hu.shape
    longer = max(rows, columns)
    square = np.zeros((longer, longer, 3), dtype=np.uint8)
    top, left = (longer - rows) // 2, (longer - columns) // 2
    square[top : top + rows, left : left + columns] = image
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR))


def pixel_values(views: Sequence[View], model: GemmaModel) -> torch.Tensor:
    """Pixels of some views as the image processor gives them, on the model's device."""
    pictures = np.stack([picture(view, model.sizes.image) for view in views])
    scaled = (pictures.astype(np.float32) / 255.0 - 0.5) / 0.5
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).to(device=model.device, dtype=model.dtype)


@torch.inference_mode()
def one_a_call(
    model: GemmaModel,
    views: Sequence[View],
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    steering: SteeringSettings,
    layers: tuple[int, int],
) -> Ids:
    """One view after the other, as a pipeline does, steered by a mask of every query by every key."""
    said: Ids = []
    for view in views:
        pixels = pixel_values([view], model)
        frame = SquareFrame.of(view.hu.shape, view.spacing)
        coverage = square_coverage([view.envelope], [frame], model.sizes.image, model.device)
        patches = organ_patches(coverage, model.sizes.patch, dilate_patches=steering.dilate_patches)
        bias = steering_bias(patches, SteeringMode(steering.mode), steering.alpha).to(model.dtype)
        mask = bias[:, None, None, :].expand(-1, 1, bias.shape[1], -1).contiguous()
        with masked(model, mask, layers):
            said += plain_generate(model, pixels, prompt, max_new_tokens)
    return said


@torch.inference_mode()
def batched(
    model: GemmaModel, views: Sequence[View], prompt: Sequence[int], max_new_tokens: int, *, batch: int, **how: Any
) -> Ids:
    """Many views in one ``generate`` with their pixels; not steered, which costs nothing."""
    said: Ids = []
    for first in range(0, len(views), batch):
        said += plain_generate(model, pixel_values(views[first : first + batch], model), prompt, max_new_tokens, **how)
    return said


def plain_generate(
    model: GemmaModel, pixels: torch.Tensor, prompt: Sequence[int], max_new_tokens: int, **how: Any
) -> Ids:
    """``generate`` of transformers, greedy; all prompts are the same."""
    network: Any = model.network
    ids = torch.tensor([prompt], device=model.device).expand(len(pixels), -1).contiguous()
    out = network.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=(ids == network.config.image_token_id).to(torch.int64),
        pixel_values=pixels,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        **how,
    )
    said: Ids = out[:, len(prompt) :].tolist()
    return said


@contextmanager
def masked(model: GemmaModel, mask: torch.Tensor, layers: tuple[int, int]) -> Iterator[None]:
    """Hand a mask to the attention of some layers of the vision encoder."""

    def steer(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (args[0], mask, *args[2:]), kwargs

    tower: Any = model.network.model.vision_tower
    hooks = [
        layer.register_forward_pre_hook(steer, with_kwargs=True)
        for layer in tower.encoder.layers[layers[0] : layers[1] + 1]
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
