"""The attention benchmark runs, reads what it says it reads, and would run at full size."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.attention import _of_letters
from m3node.gemma.generation import generate
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.wording import worded
from tests.small_gemma import small_gemma

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs_on_the_test_model() -> None:
    few = ["--tokens", "3", "--questions", "2", "--pairs", "1", "--long", "200", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.attention", "--device", "cpu", "--model", "test", *few]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: on a busy machine a bar may not be met
    assert "Traceback" not in done.stderr
    for words in ("raw, answers of 3 tokens", "gated, answers of 3 tokens", "An image and 2 questions", "Peak memory"):
        assert words in done.stdout
    assert all(mode in done.stdout for mode in ("gradcam", "rollout"))


def test_random_weights_answer_in_letters_that_can_be_read() -> None:
    model = small_gemma()
    model = _of_letters(dataclasses.replace(model, network=copy.deepcopy(model.network)))
    features = torch.randn(1, model.sizes.tokens**2, 48, generator=torch.Generator().manual_seed(0))
    (answer,) = generate(model, [prompt_ids(model, "What is this?")], features, max_new_tokens=12)
    assert len(worded(model, answer).tokens) == 12
    assert worded(model, answer).text.isalpha()
