"""The detector benchmark counts what is computed, compares like with like, and runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gemma_flops import encoder_flops, prefill_flops
from benchmarks.gemma_models import full_size_config
from benchmarks.gemma_rivals import masked
from m3node.evaluation.test_model.network import byte_tokenizer
from m3node.gemma.encoder import image_features
from m3node.gemma.generation import padded, read_in
from m3node.gemma.model import GemmaModel
from m3node.gemma.sizes import sizes_of
from m3node.gemma.steering import steering_bias
from m3node.settings import SteeringMode
from tests.small_gemma import small_gemma

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> GemmaModel:
    return small_gemma()


def test_an_image_takes_as_many_operations_as_torch_counts(model: GemmaModel) -> None:
    side = model.sizes.image
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        image_features(model, torch.zeros(3, 3, side, side), None, (0, 0))
    assert counter.get_total_flops() == 3 * encoder_flops(model.network.config)


def test_a_prompt_takes_as_many_operations_as_torch_counts(model: GemmaModel) -> None:
    config = model.network.config
    image = [config.image_token_id] * model.sizes.tokens**2
    prompts = [[2, *image, 9, 10, 11], [2, *image, 12, 13, 14]]
    features = torch.zeros(2, len(image), config.text_config.hidden_size)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        read_in(model, padded(model, prompts), features, use_cache=False)
    assert counter.get_total_flops() == 2 * prefill_flops(config, len(prompts[0]))


def test_the_full_size_is_that_of_medgemma() -> None:
    sizes = sizes_of(full_size_config(byte_tokenizer()))
    assert (sizes.image, sizes.patches, sizes.tokens, sizes.vision_layers) == (896, 64, 16, 27)
    assert (sizes.language_layers, sizes.global_layers, sizes.window) == (34, (5, 11, 17, 23, 29), 1024)
    assert (sizes.query_heads, sizes.key_heads) == (8, 4)


def test_the_rivals_mask_steers_as_the_detector_does(model: GemmaModel) -> None:
    torch.manual_seed(0)
    side, layers = model.sizes.image, (1, 2)
    pixels = torch.rand(1, 3, side, side) * 2 - 1
    patches = torch.zeros(1, model.sizes.patches, model.sizes.patches, dtype=torch.bool)
    patches[0, 1:3, 1:2] = True
    bias = steering_bias(patches, SteeringMode.SOFT, 5.0)
    ours = image_features(model, pixels, bias, layers)
    mask = bias[:, None, None, :].expand(-1, 1, bias.shape[1], -1).contiguous()
    with masked(model, mask, layers):
        theirs = model.network.model.get_image_features(pixels).pooler_output
    untouched = model.network.model.get_image_features(pixels).pooler_output
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), atol=1e-5, rtol=1e-4)
    assert (ours - untouched.reshape(ours.shape)).abs().max() > 1e-3


def test_the_benchmark_runs_on_the_test_model_and_its_rivals_say_the_same() -> None:
    few = ["--slices", "2", "--tokens", "2", "--pairs", "1", "--one-a-call", "1", "--crops", "20", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.detector", "--device", "cpu", "--model", "test", *few]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: on a busy machine a bar may not be met
    assert "Traceback" not in done.stderr
    assert done.stdout.count("6 of 6") == 2
    for heading in ("Windows and resize", "Views to features", "Arithmetic", "A study, 2 tokens", "Memory over 20"):
        assert heading in done.stdout
