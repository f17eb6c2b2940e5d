"""How good the test model is on slices that it was not trained on. It says nothing about MedGemma or about patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from m3node.detectors.medgemma.answer import parse
from m3node.evaluation.matching import box_iou
from m3node.evaluation.phantom_slices import phantom_and_twin
from m3node.evaluation.test_model.batches import pixels_of, prompts_of
from m3node.evaluation.test_model.examples import Example, example_of, padded_crop, whole_slice
from m3node.gemma.encoder import image_features
from m3node.gemma.generation import generate
from m3node.gemma.images import Edges, SquareFrame, square_coverage
from m3node.gemma.model import GemmaModel
from m3node.gemma.steering import organ_patches, steering_bias
from m3node.settings import SteeringSettings

FIRST_SEED = 1_000_000
HELD_OUT = 320
PADDINGS = (0.10, 0.15, 0.20)
"""A held-out slice is cropped with one of these, in turn."""

MIN_IOU = 0.1
"""A box that overlaps every lesion less is false."""

_BATCH = 32
_BLANKS_HU = (-1024, -100, 0, 40, 100, 300)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model said of one picture: boxes of 0…1000, none when it could not be read."""

    boxes: tuple[Edges, ...]
    readable: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """Measured on one kind of picture.

    Attributes
    ----------
    pictures, lesions : int
        How many there were.
    parse_rate : float
        Share of the answers that could be read.
    mean_best_iou : float
        Mean over the lesions of the best IoU of any box of their picture; 0 where there is none.
    recall : tuple of (float, float)
        Share of the lesions whose best IoU is at least the first number, by that number.
    false_boxes : float
        Boxes a picture that overlap every lesion with an IoU below `MIN_IOU`.
    """

    pictures: int
    lesions: int
    parse_rate: float
    mean_best_iou: float
    recall: tuple[tuple[float, float], ...]
    false_boxes: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that is said of a set of weights.

    Attributes
    ----------
    crops, whole : Quality
        Padded crops about the liver, and the same slices whole.
    steered_crops, steered_whole : Quality
        The same with the vision encoder steered to the true liver, by the default settings.
    blank_boxes : int
        Boxes on pictures of one value.
    boxes_before, boxes_after : int
        Boxes on the crops that show lesions, and on the same crops with the lesions painted over.
    """

    crops: Quality
    whole: Quality
    steered_crops: Quality
    steered_whole: Quality
    blank_boxes: int
    boxes_before: int
    boxes_after: int

    @property
    def boxes_left(self) -> float:
        """Share of the boxes that painting over leaves."""
        return self.boxes_after / self.boxes_before if self.boxes_before else 1.0


def measure(model: GemmaModel, *, slices: int = HELD_OUT, first_seed: int = FIRST_SEED) -> Measurement:
    """Measure a model on held-out 2-D phantoms.

    Parameters
    ----------
    model : GemmaModel
        The test model.
    slices : int
        How many phantoms.
    first_seed : int
        Of `m3node.evaluation.phantom_slices.slice_phantom`; the next ones follow.
    """
    crops: list[Example] = []
    whole: list[Example] = []
    painted: list[Example] = []
    for index in range(slices):
        phantom, healthy = phantom_and_twin(first_seed + index)
        crop = padded_crop(phantom, (PADDINGS[index % len(PADDINGS)],) * 4)
        crops.append(example_of(phantom, crop))
        whole.append(example_of(phantom, whole_slice(phantom), whole=True))
        if phantom.lesions:
            painted.append(example_of(healthy, crop))
    readings = read(model, crops)
    return Measurement(
        crops=_quality(crops, readings),
        whole=_quality(whole, read(model, whole)),
        steered_crops=_quality(crops, read(model, crops, SteeringSettings())),
        steered_whole=_quality(whole, read(model, whole, SteeringSettings())),
        blank_boxes=sum(len(reading.boxes) for reading in read(model, blanks())),
        boxes_before=sum(len(r.boxes) for example, r in zip(crops, readings, strict=True) if example.boxes),
        boxes_after=sum(len(reading.boxes) for reading in read(model, painted)),
    )


def read(model: GemmaModel, examples: Sequence[Example], steering: SteeringSettings | None = None) -> list[Reading]:
    """Ask the model about each picture, as the detector does, without steering when none is given."""
    readings: list[Reading] = []
    for first in range(0, len(examples), _BATCH):
        batch = examples[first : first + _BATCH]
        layers = model.profile.steered_layers
        with torch.inference_mode():
            features = image_features(model, pixels_of(model, batch), _bias(model, batch, steering), layers)
        limit = model.profile.max_new_tokens
        for answer in generate(model, prompts_of(model, batch), features, max_new_tokens=limit):
            parsed = parse(answer.text(model), ended=answer.ended, thinking=model.profile.thinking)
            readings.append(
                Reading(
                    boxes=tuple((float(b.y0), float(b.x0), float(b.y1), float(b.x1)) for b in parsed.boxes),
                    readable=not parsed.failure,
                )
            )
    return readings


def _bias(model: GemmaModel, batch: Sequence[Example], steering: SteeringSettings | None) -> torch.Tensor | None:
    if steering is None:
        return None
    coverage = square_coverage(
        [example.liver for example in batch], [example.frame for example in batch], model.sizes.image, model.device
    )
    patches = organ_patches(
        coverage,
        model.sizes.patch,
        pooling=steering.pooling,
        area_share=steering.area_share,
        dilate_patches=steering.dilate_patches,
    )
    return steering_bias(patches, steering.mode, steering.alpha)


def blanks() -> list[Example]:
    """Pictures of one value."""
    nothing = np.zeros((200, 260), dtype=bool)
    frame = SquareFrame.of(nothing.shape, (0.8, 0.8))
    return [
        Example(
            hu=np.full(nothing.shape, hu, dtype=np.int16),
            frame=frame,
            whole=False,
            boxes=(),
            liver=nothing,
            lesion=nothing,
        )
        for hu in _BLANKS_HU
    ]


def _quality(examples: Sequence[Example], readings: Sequence[Reading]) -> Quality:
    best: list[float] = []
    false = 0
    for example, reading in zip(examples, readings, strict=True):
        best += [max((_iou(box, lesion) for box in reading.boxes), default=0.0) for lesion in example.boxes]
        false += sum(all(_iou(box, lesion) < MIN_IOU for lesion in example.boxes) for box in reading.boxes)
    return Quality(
        pictures=len(examples),
        lesions=len(best),
        parse_rate=float(np.mean([reading.readable for reading in readings])),
        mean_best_iou=float(np.mean(best)) if best else 0.0,
        recall=tuple((bar, float(np.mean(np.asarray(best) >= bar)) if best else 0.0) for bar in (0.1, 0.3, 0.5)),
        false_boxes=false / len(examples),
    )


def _iou(a: Edges, b: Edges) -> float:
    return box_iou([(a[0], a[2]), (a[1], a[3])], [(b[0], b[2]), (b[1], b[3])])
