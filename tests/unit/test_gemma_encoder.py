"""The vision encoder with a bias in some layers, and without one the model's own, bit by bit."""

from __future__ import annotations

import copy
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from m3node.errors import ConfigError
from m3node.gemma.encoder import image_features
from m3node.gemma.model import GemmaModel
from m3node.gemma.steering import steering_bias
from m3node.settings import SteeringMode
from small_gemma import small_gemma


def images(count: int, side: int = 56, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)).mul(2).sub(1).to(dtype)


def own_features(model: GemmaModel, pixels: torch.Tensor) -> torch.Tensor:
    """Those of the untouched model."""
    with torch.no_grad():
        network: Any = model.network
        features: torch.Tensor = network.get_image_features(pixels).pooler_output
    return features


def masked_features(
    model: GemmaModel, pixels: torch.Tensor, bias: torch.Tensor, layers: tuple[int, int]
) -> torch.Tensor:
    """By transformers' own layers, given the bias as a mask."""
    with torch.no_grad():
        network: Any = model.network.model
        hidden = network.vision_tower.embeddings(pixels)
        for number, layer in enumerate(network.vision_tower.encoder.layers):
            steered = layers[0] <= number <= layers[1]
            hidden = layer(hidden, bias.to(hidden.dtype)[:, None, None] if steered else None)
        features: torch.Tensor = network.multi_modal_projector(network.vision_tower.post_layernorm(hidden))
    return features


def some_bias(count: int, keys: int = 16, alpha: float = 5.0) -> torch.Tensor:
    patches = torch.rand(count, 1, keys, generator=torch.Generator().manual_seed(5)) < 0.4
    patches[:, 0, 0] = True
    return steering_bias(patches, SteeringMode.SOFT, alpha)


@functools.cache
def with_norms_of_its_own() -> GemmaModel:
    """As training leaves them: no two layers normalise alike, while all new ones do."""
    model = small_gemma()
    network: Any = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(8)
    for name, weight in network.model.vision_tower.named_parameters():
        if "norm" in name:
            weight.add_(0.5 * torch.randn(weight.shape, generator=generator))
    return replace(model, network=network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [None, torch.zeros(3, 16)], ids=["none", "zeros"])
def test_without_steering_features_are_the_untouched_models_bit_by_bit(
    dtype: torch.dtype, bias: torch.Tensor | None
) -> None:
    model = small_gemma(dtype=dtype)
    pixels = images(3, dtype=dtype)
    assert torch.equal(image_features(model, pixels, bias, (0, 2)), own_features(model, pixels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_view_without_the_organ_is_not_steered_among_others_that_are(dtype: torch.dtype) -> None:
    # 256 patches and heads of 72: there a folded bias of zero is not quite no bias.
    model = small_gemma(image=224, vision_hidden=144, vision_heads=2, dtype=dtype)
    pixels, bias = images(4, 224, dtype), some_bias(4, keys=256)
    bias[1] = bias[2] = 0.0
    features, own = image_features(model, pixels, bias, (1, 2)), own_features(model, pixels)
    assert torch.equal(features[1:3], own[1:3])
    assert (features[0] - own[0]).abs().max() > 1e-3
    assert (features[3] - own[3]).abs().max() > 1e-3


@pytest.mark.parametrize("layers", [(0, 2), (1, 1), (2, 2), (0, 1)])
def test_only_the_chosen_layers_are_steered(layers: tuple[int, int]) -> None:
    model, pixels, bias = with_norms_of_its_own(), images(2), some_bias(2)
    features = image_features(model, pixels, bias, layers)
    assert torch.allclose(features, masked_features(model, pixels, bias, layers), atol=1e-5)
    others = {(0, 2), (1, 1), (2, 2), (0, 1)} - {layers}
    assert all((features - masked_features(model, pixels, bias, other)).abs().max() > 1e-4 for other in others)


def test_images_of_one_batch_do_not_meet_and_each_has_its_own_mask() -> None:
    model, pixels, bias = small_gemma(), images(3), some_bias(3)
    together = image_features(model, pixels, bias, (0, 2))
    for number in range(3):
        one = slice(number, number + 1)
        assert torch.allclose(together[one], image_features(model, pixels[one], bias[one], (0, 2)), atol=1e-6)
    changed = bias.clone()
    changed[2] = steering_bias(torch.arange(16)[None, None] < 3, SteeringMode.HARD, 5.0)
    other = image_features(model, pixels, changed, (0, 2))
    assert torch.equal(other[:2], together[:2])
    assert (other[2] - together[2]).abs().max() > 1e-3


def test_threads_that_share_a_model_do_not_meet() -> None:
    model, pixels = small_gemma(), images(2)
    biases = [None, *(some_bias(2, alpha=alpha) for alpha in (1.0, 5.0, 50.0))]
    alone = [image_features(model, pixels, bias, (0, 2)) for bias in biases]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            (number, pool.submit(image_features, model, pixels, biases[number], (0, 2))) for number in [0, 1, 2, 3] * 10
        ]
        assert all(torch.equal(job.result(), alone[number]) for number, job in jobs)
    assert torch.equal(own_features(model, pixels), alone[0])


def test_with_the_published_encoders_geometry_the_features_are_those_of_a_mask() -> None:
    """64 × 64 patches and 16 heads of 72, in one layer."""
    model = small_gemma(image=896, tokens=16, vision_layers=1, vision_hidden=1152, vision_heads=16)
    pixels = images(1, 896)
    patches = torch.zeros(1, 64, 64, dtype=torch.bool)
    patches[:, 10:30, 8:50] = True
    bias = steering_bias(patches, SteeringMode.SOFT, 5.0)
    features = image_features(model, pixels, bias, (0, 0))
    assert features.shape == (1, 256, 48)
    assert torch.allclose(features, masked_features(model, pixels, bias, (0, 0)), atol=2e-5)


@pytest.mark.parametrize("layers", [(14, 26), (-1, 2), (2, 1), (0, 3), (3, 3)])
def test_layers_that_the_encoder_lacks_are_refused(layers: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="0–2"):
        image_features(small_gemma(), images(1), some_bias(1), layers)


def test_a_bias_for_another_number_of_images_is_refused() -> None:
    for rows, pixels in ((2, 3), (3, 2)):
        with pytest.raises(ValueError, match=f"{rows} rows of steering for {pixels} images"):
            image_features(small_gemma(), images(pixels), some_bias(rows), (0, 2))


def test_pixels_of_another_dtype_are_brought_to_the_models_and_nothing_is_kept_for_gradients() -> None:
    model, pixels, bias = small_gemma(dtype=torch.bfloat16), images(2), some_bias(2)
    features = image_features(model, pixels.requires_grad_(), bias, (0, 2))
    assert (features.dtype, features.requires_grad) == (torch.bfloat16, False)
    assert torch.equal(features, image_features(model, pixels.bfloat16(), bias, (0, 2)))
