"""Steering: which patches are the organ's, what bias that makes, and attention that is exactly the biased softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from m3node.gemma.images import SquareFrame, square_coverage
from m3node.gemma.steering import HARD, organ_patches, steered_attention, steering_bias
from m3node.settings import SteeringMode

HEADS, SIZE, PATCHES = 16, 72, 64
SCALE = SIZE**-0.5


def published(queries: int = PATCHES**2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of the published geometry; logits spread by about 6, as a trained encoder's do."""
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, HEADS, PATCHES**2, SIZE, generator=random) for _ in range(3))
    return query[:, :, :queries] * 2.5, key * 2.5, value


def organ(share: float = 0.2) -> torch.Tensor:
    patches = torch.zeros(1, PATCHES, PATCHES, dtype=torch.bool)
    rows = round(PATCHES * share)
    patches[:, 20 : 20 + rows, 5:60] = True
    return patches


def plain_softmax(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scale: float = SCALE
) -> torch.Tensor:
    logits = query.double() @ key.double().transpose(-1, -2) * scale + bias.double()[:, None, None]
    return logits.softmax(dim=-1) @ value.double()


# Twice what the kernel errs without a bias, against the same softmax: see the test that says so.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2.5e-3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("mode", "alpha"), [(SteeringMode.SOFT, 5.0), (SteeringMode.SOFT, 0.7), (SteeringMode.HARD, 1)]
)
def test_folded_attention_is_the_biased_softmax_over_4096_keys(
    dtype: torch.dtype, mode: SteeringMode, alpha: float
) -> None:
    query, key, value = (tensor.to(dtype) for tensor in published(queries=192))
    bias = steering_bias(organ(), mode, alpha)
    attended = steered_attention(query, key, value, bias, SCALE)
    assert attended.dtype == dtype
    expected = plain_softmax(query, key, value, bias)
    assert (attended.double() - expected).abs().max() < TOLERANCE[dtype]
    without = scaled_dot_product_attention(query, key, value, scale=SCALE).double()
    own_error = (without - plain_softmax(query, key, value, bias * 0)).abs().max()
    assert (attended.double() - expected).abs().max() < 2 * own_error


def test_folded_attention_is_exact_for_every_query_of_the_published_geometry() -> None:
    query, key, value = published()
    bias = steering_bias(organ(), SteeringMode.SOFT, 5.0)
    attended = steered_attention(query, key, value, bias, SCALE)
    some = torch.randperm(PATCHES**2, generator=torch.Generator().manual_seed(1))[:128]
    expected = plain_softmax(query[:, :, some], key, value, bias)
    assert (attended[:, :, some].double() - expected).abs().max() < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_hard_is_attention_over_the_organs_patches_alone(dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in published(queries=192))
    patches = organ()
    inside = patches.flatten()
    attended = steered_attention(query, key, value, steering_bias(patches, SteeringMode.HARD, 5.0), SCALE)
    alone = plain_softmax(query, key[:, :, inside], value[:, :, inside], torch.zeros(1, int(inside.sum())))
    assert (attended.double() - alone).abs().max() < TOLERANCE[dtype]
    # What lies off the organ cannot be told from the result, whatever it is.
    value[:, :, ~inside] = 1e4
    again = steered_attention(query, key, value, steering_bias(patches, SteeringMode.HARD, 5.0), SCALE)
    assert torch.equal(again, attended)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3)], ids=str)
def test_a_bias_of_many_logits_keeps_its_precision_in_16_bits(dtype: torch.dtype, allowed: float) -> None:
    """Products that outweigh the bias to within its rounding: one rounded part would be off by half a logit."""
    alpha, scale = 300.7, 0.25
    query, key = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 64, 16)
    query[..., :2] = 32.0
    key[0, 0, 32:, 0], key[0, 0, 32:, 1] = 37.5, 0.0859375  # × 32 × .25 = 300.6875 off the organ
    bias = torch.zeros(1, 64)
    bias[:, 32:] = -alpha
    value = torch.zeros(1, 1, 64, 16)
    value[0, 0, 32:] = 1.0
    value[0, 0, :32] = -1.0
    (share,) = steered_attention(query.to(dtype), key.to(dtype), value.to(dtype), bias, scale)[0, 0, :, 0].tolist()
    assert share == pytest.approx(math.tanh((300.6875 - alpha) / 2), abs=allowed)


def test_images_of_one_batch_are_led_by_their_own_bias() -> None:
    query, key, value = (tensor.expand(2, -1, -1, -1) for tensor in published(queries=64))
    bias = steering_bias(torch.cat([organ(0.2), organ(0.5)]), SteeringMode.SOFT, 5.0)
    attended = steered_attention(query, key, value, bias, SCALE)
    assert (attended - plain_softmax(query, key, value, bias)).abs().max() < TOLERANCE[torch.float32]
    assert (attended[0] - attended[1]).abs().max() > 0.1


class Attention(TorchDispatchMode):
    """Notes which attention kernels run, whether they were given a mask, and heads of which size."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, bool]] = []
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if "attention" in name:
            # Of all their arguments, a mask is the only further tensor.
            more = [value for value in (*args[3:], *kwargs.values()) if isinstance(value, torch.Tensor)]
            self.calls.append((name, bool(more)))
            self.sizes += [tensor.shape[-1] for tensor in args[:3]]
        return func(*args, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_flash_kernel_stays_in_use_and_is_given_no_mask(dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in published(queries=64))
    bias = steering_bias(organ(), SteeringMode.SOFT, 5.0)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), Attention() as seen:
        steered_attention(query, key, value, bias, SCALE)
    assert seen.calls == [("_scaled_dot_product_flash_attention_for_cpu", False)]
    assert seen.sizes == [80] * 3  # the next multiple of 8, which kernels want
    with Attention() as seen:
        scaled_dot_product_attention(query, key, value, attn_mask=bias.to(dtype)[:, None, None], scale=SCALE)
    assert [masked for _, masked in seen.calls] == [True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_the_flash_kernel_runs_the_folded_bias_and_refuses_a_mask() -> None:
    query, key, value = (tensor.to("cuda", torch.bfloat16) for tensor in published())
    bias = steering_bias(organ().cuda(), SteeringMode.SOFT, 5.0)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        attended = steered_attention(query, key, value, bias, SCALE)
        with pytest.raises(RuntimeError):
            scaled_dot_product_attention(query, key, value, attn_mask=bias.bfloat16()[:, None, None], scale=SCALE)
    some = slice(0, 64)
    expected = plain_softmax(query[:, :, some], key, value, bias)
    assert (attended[:, :, some].double() - expected).abs().max() < TOLERANCE[torch.bfloat16]


def test_a_bias_is_zero_on_the_organ_and_alpha_less_off_it() -> None:
    patches = torch.tensor([[[True, False], [False, True]], [[False, False], [True, False]]])
    soft = steering_bias(patches, SteeringMode.SOFT, 5.0)
    assert soft.tolist() == [[0, -5, -5, 0], [-5, -5, 0, -5]]
    assert steering_bias(patches, SteeringMode.HARD, 5.0).tolist() == [[0, -HARD, -HARD, 0], [-HARD, -HARD, 0, -HARD]]


def test_off_and_a_view_without_the_organ_have_no_bias() -> None:
    patches = torch.tensor([[[True, False]], [[False, False]]])
    assert not steering_bias(patches, SteeringMode.OFF, 5.0).any()
    for mode in (SteeringMode.SOFT, SteeringMode.HARD):
        bias = steering_bias(patches, mode, 5.0)
        assert bias[0].any()
        assert not bias[1].any()


def coverage(mask: np.ndarray[Any, Any], side: int) -> torch.Tensor:
    return square_coverage([mask], [SquareFrame.of(mask.shape, (1.0, 1.0))], side, "cpu")


def chosen(patches: torch.Tensor) -> set[tuple[int, int]]:
    return {(row, column) for row, column in patches[0].nonzero().tolist()}


def test_a_patch_is_the_organs_by_any_pixel_or_by_its_share_of_area() -> None:
    mask = np.zeros((28, 28), dtype=np.bool_)
    mask[0:7, 0:7] = True  # a quarter of the first patch of 14
    mask[0:14, 14:22] = True  # eight columns of fourteen of the second
    mask[20, 20] = True
    assert chosen(organ_patches(coverage(mask, 28), 14)) == {(0, 0), (0, 1), (1, 1)}
    assert chosen(organ_patches(coverage(mask, 28), 14, pooling="area", area_share=0.25)) == {(0, 0), (0, 1)}
    assert chosen(organ_patches(coverage(mask, 28), 14, pooling="area", area_share=0.5)) == {(0, 1)}
    assert chosen(organ_patches(coverage(mask, 28), 14, pooling="area", area_share=8 / 14)) == {(0, 1)}
    assert chosen(organ_patches(coverage(mask, 28), 14, pooling="area", area_share=0.6)) == set()


def test_an_organ_that_ends_at_a_patchs_edge_does_not_reach_the_next_at_any_resizing() -> None:
    for size in range(16, 452, 4):
        mask = np.zeros((size, size), dtype=np.bool_)
        mask[: size // 4, : size // 2] = True
        assert chosen(organ_patches(coverage(mask, 56), 14)) == {(0, 0), (0, 1)}


def test_a_single_voxel_of_a_large_slice_is_not_lost() -> None:
    mask = np.zeros((512, 512), dtype=np.bool_)
    mask[300, 77] = True
    assert organ_patches(coverage(mask, 224), 14).sum() >= 1


def test_patches_are_added_on_every_side() -> None:
    mask = np.zeros((64, 64), dtype=np.bool_)
    mask[20:24, 20:24] = True
    patches = organ_patches(coverage(mask, 64), 4, dilate_patches=2)
    assert chosen(patches) == {(row, column) for row in range(3, 8) for column in range(3, 8)}
    assert organ_patches(coverage(mask, 64), 4, dilate_patches=64).all()
    assert not organ_patches(coverage(mask, 64) * 0, 4, dilate_patches=64).any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    radii=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=3),
    share=st.sampled_from([0.0, 0.002, 0.05]),
)
def test_a_radius_reaches_as_far_as_it_says_one_radius_a_view(seed: int, radii: list[float], share: float) -> None:
    masks = np.random.default_rng(seed).random((len(radii), 28, 28)) < share
    # What covers a pixel faintly is grown like what covers all of it.
    faint = torch.from_numpy(masks.astype(np.float32)) * 0.01
    patches = organ_patches(faint, 1, dilate_px=torch.tensor(radii, dtype=torch.float64))
    for grown, mask, radius in zip(patches, masks, radii, strict=True):
        expected = distance_transform_edt(~mask) ** 2 <= np.float32(radius) ** 2 if mask.any() else mask
        assert np.array_equal(grown.numpy(), expected)


def test_a_radius_reaches_from_one_edge_to_the_other_and_no_farther() -> None:
    corner = torch.zeros(1, 28, 28)
    corner[0, 0, 0] = 1.0
    for radius, expected in ((26.5, 27), (27.0, 28), (30.0, 28)):
        patches = organ_patches(corner, 1, dilate_px=radius)
        assert (int(patches[0, :, 0].sum()), int(patches[0, 0].sum())) == (expected, expected)


def test_a_view_without_a_radius_keeps_its_shares_beside_one_that_has_one() -> None:
    halves = torch.full((2, 14, 14), 0.3)
    patches = organ_patches(halves, 14, pooling="area", dilate_px=torch.tensor([0.0, 1.0]))
    assert patches.flatten().tolist() == [False, True]


def test_millimetres_are_added_before_pooling() -> None:
    mask = np.zeros((56, 56), dtype=np.bool_)
    mask[28:42, 28:42] = True
    assert chosen(organ_patches(coverage(mask, 56), 14, dilate_px=3.0)) == {
        (row, column) for row in (1, 2, 3) for column in (1, 2, 3)
    }
    # Three pixels of fourteen on each side are no half of a patch.
    assert chosen(organ_patches(coverage(mask, 56), 14, pooling="area", dilate_px=3.0)) == {(2, 2)}
