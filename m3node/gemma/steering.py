"""Spatial-Aware Attention Steering: a bias a key leads the vision encoder's attention to the organ's patches.

The published method takes ``alpha`` off the attention logits of every patch off the organ, in some of the encoder's
layers. Here the bias travels inside the queries and keys themselves: the fastest kernels take no mask, and one of every
query by every key would be 4096 × 4096 an image.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from m3node.settings import SteeringMode

HARD = 1e4
"""Taken off in ``hard`` mode, as published: its exponential is zero, so the organ's patches alone are seen."""

TOUCHED = 1e-3
"""Share of one of the model's pixels from which on the organ is in it; less is rounding at a common edge."""

_CARRIER = 16.0
"""What 16-bit queries hold in the spare dimensions, so that a hard bias stays within half precision."""


def organ_patches(
    coverage: torch.Tensor,
    patch: int,
    *,
    pooling: str = "any",
    area_share: float = 0.5,
    dilate_patches: int = 0,
    dilate_px: float | torch.Tensor = 0.0,
) -> torch.Tensor:
    """Find the patches of the model's image that hold the organ.

    Parameters
    ----------
    coverage : Tensor of float, shape (batch, side, side)
        Share of each pixel that the organ covers, from `m3node.gemma.images.square_coverage`.
    patch : int
        Side of a patch in pixels.
    pooling : str
        ``any``: a patch is the organ's when a pixel of it is; ``area``: when its share of area is reached.
    area_share : float
        For ``area``.
    dilate_patches : int
        Patches that are added on every side, corners included, after pooling.
    dilate_px : float or Tensor of shape (batch,)
        Radius in the model's pixels that is added around the organ before pooling; views differ in millimetres a pixel.

    Returns
    -------
    Tensor of bool, shape (batch, patches, patches)
    """
    radius = torch.as_tensor(dilate_px, dtype=torch.float32, device=coverage.device).expand(len(coverage))
    if bool((radius > 0).any()):
        near = _within(coverage > TOUCHED, radius)
        coverage = torch.where(near & (radius > 0)[:, None, None], 1.0, coverage)
    if pooling == "any":
        chosen = functional.max_pool2d(coverage[:, None], patch)[:, 0] > TOUCHED
    else:
        chosen = functional.avg_pool2d(coverage[:, None], patch)[:, 0] >= area_share - 1e-5  # of rounding
    if dilate_patches:
        size, reach = 2 * dilate_patches + 1, dilate_patches
        grown = functional.max_pool2d(chosen[:, None].float(), (size, 1), stride=1, padding=(reach, 0))
        chosen = functional.max_pool2d(grown, (1, size), stride=1, padding=(0, reach))[:, 0] > 0
    return chosen


def steering_bias(patches: torch.Tensor, mode: SteeringMode, alpha: float) -> torch.Tensor:
    """Turn patches into a bias a key.

    Parameters
    ----------
    patches : Tensor of bool, shape (batch, patches, patches)
        The organ's.
    mode : SteeringMode
        ``soft`` takes ``alpha`` off the logits of the others, ``hard`` takes `HARD`.
    alpha : float
        In logits.

    Returns
    -------
    Tensor of float32, shape (batch, patches²)
        0 on the organ. A row of zeros is no steering: with mode ``off``, and for a view without the organ, which has
        nothing to be led to.
    """
    keys = patches.flatten(1)
    if mode is SteeringMode.OFF:
        return torch.zeros(keys.shape, dtype=torch.float32, device=keys.device)
    others = ~keys & keys.any(dim=1, keepdim=True)
    return others.to(torch.float32) * -(HARD if mode is SteeringMode.HARD else alpha)


def steered_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend with ``softmax(query · key × scale + bias)``, by kernels that take no mask.

    A constant is appended to each query, and to each key its bias over constant and scale: their product is the bias.
    With 16-bit numbers the key holds it in two parts, the rounded one and what rounding lost, which together are right
    to 2⁻¹⁶ of it.

    Parameters
    ----------
    query, key, value : Tensor, shape (batch, heads, tokens, size)
        Of one dtype and size.
    bias : Tensor of float32, shape (batch, keys)
        The same for every query and head.
    scale : float
        Of the products, as without bias.

    Returns
    -------
    Tensor, shape (batch, heads, tokens, size)
    """
    size = query.shape[-1]
    short = query.dtype.itemsize == 2
    carrier = _CARRIER if short else 1.0
    exact = (bias / (scale * carrier)).to(torch.promote_types(query.dtype, torch.float32))
    parts = [exact.to(query.dtype)]
    if short:
        parts.append((exact - parts[0].to(exact.dtype)).to(query.dtype))
    # Kernels want sizes that are a multiple of 8; zeros change no product.
    spare = -(size + len(parts)) % 8 + len(parts)
    wide_query, wide_key, wide_value = (functional.pad(tensor, (0, spare)) for tensor in (query, key, value))
    for place, part in enumerate(parts, start=size):
        wide_query[..., place] = carrier
        wide_key[..., place] = part[:, None]
    attended = functional.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=scale)
    return attended[..., :size]


def _within(organ: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Pixels whose centre is at most ``radius`` from that of a pixel of the organ; one radius an image."""
    _, rows, columns = organ.shape
    far = float(rows + columns)
    place = torch.arange(columns, dtype=torch.float32, device=organ.device)
    # Along each row to the nearest on either side, then over the rows: Euclidean distance, one axis at a time.
    before = place - torch.where(organ, place, -far).cummax(dim=2).values
    after = torch.where(organ, place, 2 * far).flip(2).cummin(dim=2).values.flip(2) - place
    along = torch.minimum(before, after).square_()
    limit = radius.square()[:, None, None]
    near = along <= limit
    for step in range(1, min(rows, int(radius.max()) + 1)):
        inside = along + step * step <= limit
        near[:, step:] |= inside[:, :-step]
        near[:, :-step] |= inside[:, step:]
    return near
