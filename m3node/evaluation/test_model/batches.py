"""Examples to tensors: pictures exactly as a detector makes them, prompts and answers in one padded sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from m3node.evaluation.test_model.answers import Teacher
from m3node.evaluation.test_model.examples import Example
from m3node.gemma.images import normalised, square_images
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.imaging.windows import ct_windows


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Prompts with their answers, padded on the right.

    Attributes
    ----------
    ids, mask, kinds : Tensor of int64, shape (batch, length)
        Tokens, 1 where one is, 1 where the image is.
    asked : Tensor of bool, shape (batch, length)
        Positions whose next token is the answer's.
    targets : Tensor of float32, shape (answer tokens of the batch, vocabulary)
        In the order of ``asked``.
    weights : Tensor of float32, shape (answer tokens of the batch,)
        What an error costs.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    kinds: torch.Tensor
    asked: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def pixels_of(model: GemmaModel, examples: Sequence[Example]) -> torch.Tensor:
    """Give the model's input of some crops, shape (batch, 3, side, side)."""
    images = [ct_windows(example.hu) for example in examples]
    squares = square_images(images, [example.frame for example in examples], model.sizes.image, model.device)
    return normalised(squares, model.dtype)


def prompts_of(model: GemmaModel, examples: Sequence[Example]) -> list[list[int]]:
    """Ask about each crop as the profile has it."""
    crop, whole = (prompt_ids(model, text) for text in (model.profile.crop_prompt, model.profile.slice_prompt))
    return [whole if example.whole else crop for example in examples]


def sequences_of(model: GemmaModel, teacher: Teacher, examples: Sequence[Example], sigma: float) -> Sequences:
    """Put prompts and answers together for one teacher-forced pass."""
    config: Any = model.network.config
    prompts = prompts_of(model, examples)
    answers = [teacher.answer(example.boxes, sigma) for example in examples]
    # The answer's last token predicts nothing.
    length = max(len(prompt) + len(answer.ids) - 1 for prompt, answer in zip(prompts, answers, strict=True))
    ids = np.full((len(examples), length), int(config.text_config.pad_token_id))
    mask, asked = np.zeros_like(ids), np.zeros(ids.shape, dtype=bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = [*prompt, *answer.ids[:-1]]
        ids[row, : len(whole)] = whole
        mask[row, : len(whole)] = 1
        asked[row, len(prompt) - 1 : len(whole)] = True
    return Sequences(
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        kinds=torch.from_numpy((ids == config.image_token_id).astype(np.int64)),
        asked=torch.from_numpy(asked),
        targets=torch.from_numpy(np.concatenate([answer.targets for answer in answers])),
        weights=torch.from_numpy(np.concatenate([answer.weights for answer in answers])),
    )
