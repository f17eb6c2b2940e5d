"""Stands in for a model: looks where an image is bright, and answers by how bright it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from m3node.attention.images.image import InputImage
from m3node.attention.output.setup import Setup
from m3node.attention.reading.looked import Looked
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.errors import ConfigError
from m3node.gemma.images import SquareFrame, normalised, square_images

CELLS = 8
BRIGHT = 40
"""Mean grey level from which the answer is yes."""


class SpotLooker:
    """Looks where it is bright; says yes when much is, and nothing but yes when asked "always"."""

    def __init__(self) -> None:
        self.encoded: list[tuple[int, int]] = []
        self.asked: list[list[str]] = []

    def features(self, image: InputImage) -> torch.Tensor:
        self.encoded.append(image.shape)
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
