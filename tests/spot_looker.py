"""Stands in for a model: looks where an image is bright, and answers by how bright it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from m3node.attention.images.finding import ImageFolder
from m3node.attention.images.image import InputImage
from m3node.attention.images.liver import LiverOutlines
from m3node.attention.output.setup import Setup
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.attention.robustness.perturbation import parse_list
from m3node.attention.robustness.running import Bench, open_robustness
from m3node.errors import ConfigError
from m3node.gemma.images import SquareFrame, normalised, square_images

CELLS = 8
BRIGHT = 40
"""Mean grey level from which the answer is yes."""


class SpotLooker:
    """Looks where it is bright; says yes when much is, and nothing but yes when asked "always"."""

    def __init__(self) -> None:
        self.encoded: list[tuple[int, int]] = []
        self.with_body: list[bool] = []
        self.asked: list[list[str]] = []

    def features(self, image: InputImage) -> torch.Tensor:
        self.encoded.append(image.shape)
        self.with_body.append(image.body is not None and bool(image.body.any()))
        pixels = square_images([image.rgb], [SquareFrame.of(image.shape, image.spacing)], CELLS * 8, "cpu")
        cells = normalised(pixels, torch.float32)[0, 0].reshape(CELLS, 8, CELLS, 8).mean(dim=(1, 3)) + 1.0
        return cells**2 + 1e-6

    def ask(self, features: torch.Tensor, image: InputImage, texts: Sequence[str]) -> list[Looked]:
        if any("<image>" in text for text in texts):
            raise ConfigError("the question holds the model's own token <image>")
        self.asked.append(list(texts))
        return [self._looked(features, image, text) for text in texts]

    def _looked(self, features: torch.Tensor, image: InputImage, text: str) -> Looked:
        yes = image.rgb.mean() > BRIGHT or "always" in text
        if "free of" in text:
            yes = not yes
        return Looked(
            answer="Yes, there is." if yes else "No.",
            ended=True,
            log_prob=-0.5,
            grid=np.asarray(features / features.sum(), dtype=np.float32),
            area=SquareFrame.of(image.shape, image.spacing).area,
            mode=Mode.RAW,
            passed_over=("gated: no medical term in the question",),
            degenerate="flat" in text,
            image_share=0.4,
            tokens=("Yes",),
            terms=(),
        )


def write_spots(root: Path) -> None:
    """Write the pictures ``one`` (dark: no) and ``two`` (brighter: yes), each with one smooth spot."""
    for name, (rows, columns), at in (("one", (96, 80), (30, 55)), ("two", (64, 64), (40, 20))):
        r, c = np.mgrid[:rows, :columns]
        grey = 10 + 230 * np.exp(-((r - at[0]) ** 2 + (c - at[1]) ** 2) / 200)
        Image.fromarray(grey.astype(np.uint8)).save(root / f"{name}.png")


def spot_setup() -> Setup:
    """Say what a run with it depends on."""
    model = {
        **{"name": "spots", "revision": "", "weights": "sha256:0", "profile": "test", "is_test_model": True},
        **{"dtype": "float32", "image_first": True},
    }
    return Setup(model, ReadingPlan(Mode.GATED, (1,), (1.0,)), "terms", "xray")


ASKED = "Is there a nodule?"
CHANGES = "noise:5,brightness:90,rotation:20,crop:0.2,pad:0.5"


def question(line: int, image: str, text: str, index: int = 0, *, strategy: str = "", truth: str = "no") -> Question:
    """Ask about an image, by default with the truth no."""
    return Question(line, image, "s1", text, ASKED, index, strategy=strategy, truth=truth)


QUESTIONS = (
    question(2, "one", ASKED),
    question(3, "one", "Do you see a nodule?", 1, strategy="paraphrase"),
    question(4, "one", "Is there always a nodule?", 2, strategy="paraphrase"),
    question(5, "one", "Are the lungs free of nodules?", 3, strategy="negation", truth="yes"),
    replace(question(6, "one", "Is there a flat nodule?"), baseline="Is there a flat nodule?"),
    question(7, "two", ASKED),
    question(8, "two", "What is <image>?", 1, strategy="paraphrase"),
    question(9, "gone", ASKED),
    replace(question(10, "two", ""), baseline="Where?", variant_index=1),
)
"""Two baseline questions about an image, one about another with a variant that cannot be asked, one about none."""


def bench(
    out: Path, images: Path, looker: Any, *, changes: str = CHANGES, seed: int = 5, resume: bool = False
) -> Bench:
    """Lay everything out for a run."""
    folder = ImageFolder(images)
    return Bench(
        looker,
        spot_setup(),
        folder,
        LiverOutlines(folder),
        open_robustness(out, images, resume=resume),
        parse_list(changes),
        seed,
    )
