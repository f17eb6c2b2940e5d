"""The detector `medgemma` on a small model of random weights: views for it, and answers that are written for it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import torch

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma import detector as module
from m3node.detectors.protocols import View, ViewResult
from m3node.evaluation.ct_writer import axial_geometry
from m3node.gemma.generation import Answer
from m3node.gemma.model import GemmaModel
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion, LiverSource
from tests.small_gemma import small_gemma

VOLUME = CTVolume(hu=np.zeros((1, 4, 4), np.int16), geometry=axial_geometry((1, 4, 4), (1.0, 1.0, 1.0)), sources=())
REGION = LiverRegion(
    parenchyma=VoxelMask.empty((1, 4, 4)),
    envelope=VoxelMask.empty((1, 4, 4)),
    source=LiverSource.LABEL_MAP,
    reference="",
    algorithm="test",
)
EMPTY = "Final Answer:\n```json\n[]\n```"

Told = tuple[str, bool]
"""What is said, and whether it ended by itself."""


def written(*boxes: tuple[int, int, int, int], labels: Sequence[str] = ()) -> str:
    """An answer that names boxes; one without a label here is called a liver lesion."""
    named = zip_longest(boxes, labels, fillvalue="liver lesion")
    entries = [{"box_2d": list(box), "label": label} for box, label in named]
    return f"Final Answer:\n```json\n{json.dumps(entries)}\n```"


@functools.cache
def random_model() -> GemmaModel:
    """One model for all tests of a process."""
    return small_gemma(vision_layers=4)


def make_view(number: int = 0, shape: tuple[int, int] = (40, 60), *, whole: bool = False) -> View:
    """Noise, with an envelope from a quarter to the half of each side."""
    generator = np.random.default_rng(number)
    envelope = np.zeros(shape, dtype=np.bool_)
    envelope[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = True
    return View(
        hu=generator.integers(-100, 200, shape, dtype=np.int16),
        envelope=envelope,
        parenchyma=envelope,
        slice_index=number,
        origin=(0, 0),
        spacing=(0.8, 0.8),
        padding=0.1,
        whole=whole,
    )


def look(detector: MedGemmaDetector, views: Sequence[View]) -> list[ViewResult]:
    """All answers."""
    return list(detector.look(views, VOLUME, REGION))


@dataclass(slots=True)
class Script:
    """Stands in for `generate`: says what it is told to of view 0, 1, …, and keeps the prompts as they come.

    A token's probability tells its place: 1/2 for the first of an answer, then 1/3, 1/4, …
    """

    says: Callable[[int], Told]
    asked: list[Sequence[int]] = field(default_factory=list)

    def __call__(  # the arguments of `generate`
        self,
        model: GemmaModel,
        prompts: Sequence[Sequence[int]],
        features: torch.Tensor,
        *,
        max_new_tokens: int,
        ended: Callable[[int], None],
    ) -> list[Answer]:
        assert len(features) == len(prompts)
        assert max_new_tokens > 0
        tokenizer: Any = model.tokenizer
        answers = []
        for prompt in prompts:
            text, whole = self.says(len(self.asked))
            self.asked.append(prompt)
            ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            answers.append(Answer(ids, whole, tuple(-math.log(2.0 + at) for at in range(len(ids)))))
            ended(len(answers))
        return answers


def script(monkeypatch: pytest.MonkeyPatch, *said: str | Told) -> Script:
    """Have the model say one text after the other, the last one again and again."""

    def says(number: int) -> Told:
        told = said[min(number, len(said) - 1)]
        return (told, True) if isinstance(told, str) else told

    made = Script(says)
    monkeypatch.setattr(module, "generate", made)
    return made
