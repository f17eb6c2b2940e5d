"""The detector: views to images, images to features, features to answers, answers to boxes, all in batches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from m3node.detectors.medgemma.answer import UnitBox, parse
from m3node.detectors.medgemma.boxes import coordinate_tokens, lesion_box, score_of
from m3node.detectors.medgemma.identity import identify
from m3node.detectors.medgemma.memory import views_that_fit
from m3node.detectors.medgemma.questions import make_questions
from m3node.detectors.protocols import (
    Answered,
    AttentionGrid,
    Box2D,
    DetectorIdentity,
    ScoreKind,
    View,
    ViewBox,
    ViewResult,
)
from m3node.errors import ConfigError, InferenceError
from m3node.gemma.batches import BatchSize, in_batches
from m3node.gemma.encoder import image_features
from m3node.gemma.generation import Answer, generate
from m3node.gemma.images import SquareFrame, normalised, square_coverage, square_images
from m3node.gemma.loading import load_model
from m3node.gemma.model import GemmaModel
from m3node.gemma.reading import Reading, read_answers
from m3node.gemma.spans import token_spans
from m3node.gemma.steering import organ_patches, steering_bias
from m3node.imaging.volume import CTVolume
from m3node.imaging.windows import ct_windows
from m3node.liver.region import LiverRegion
from m3node.settings import DetectorSettings, MedGemmaSettings, SteeringMode

_log = logging.getLogger(__name__)

_ENCODED_TOGETHER = 16
"""Images in one pass of the vision encoder: it is busy with these, and more take only memory."""

NO_LESION_BOX = "no box in the answer can be a lesion's"
"""Failure of an answer of which every box is dropped. It said that something is there; "no lesion" it did not say."""


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """One view's answer, read.

    Attributes
    ----------
    failure : str
        Why it could not be read; empty when it could.
    boxes : tuple of (UnitBox, Box2D, tokens)
        Those that are kept: as written, on the view, and the answer's tokens that wrote their coordinates.
    tokens : tuple of int
        The answer's tokens behind its thinking text.
    """

    frame: SquareFrame
    answer: Answer
    text: str
    failure: str
    boxes: tuple[tuple[UnitBox, Box2D, tuple[int, ...]], ...] = ()
    tokens: tuple[int, ...] = ()


class MedGemmaDetector:
    """A vision-language model that is asked for boxes, view by view; a `CropDetector`.

    Parameters
    ----------
    model : GemmaModel
        Loaded; several detectors may share one.
    settings : MedGemmaSettings
        Steering, prompts, limits.

    Attributes
    ----------
    keep_attention : bool
        Read every answer back and give its attention along with it; off unless somebody wants to see it.

    Raises
    ------
    ConfigError
        The model lacks the layers to be steered or read, or a prompt cannot be used.
    """

    def __init__(self, model: GemmaModel, settings: MedGemmaSettings) -> None:
        self.keep_attention = False
        self._model = model
        self._steering = settings.steering
        self._steered_layers = settings.steering.layers or model.profile.steered_layers
        self._read_layers = settings.attention_layers or model.profile.read_layers or model.sizes.global_layers
        self._max_new_tokens = settings.max_new_tokens or model.profile.max_new_tokens
        self._questions = make_questions(model, settings)
        _check(self._steered_layers, model.sizes.vision_layers, "steering.layers")
        _check(self._read_layers, model.sizes.language_layers, "attention_layers")
        prompt = max(len(self._questions.crop), len(self._questions.whole))
        together = settings.batch_views or views_that_fit(model, prompt, self._max_new_tokens)
        self._together = BatchSize(together)
        self._encoded_together = BatchSize(_ENCODED_TOGETHER)
        self._read_together = BatchSize(together)

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> MedGemmaDetector:
        """Load the model and build the detector, as the registry does."""
        return cls(load_model(settings.medgemma), settings.medgemma)

    @property
    def identity(self) -> DetectorIdentity:
        """Model, weights and every parameter that changes the answers."""
        return identify(
            self._model,
            self._questions,
            self._steering,
            layers=self._steered_layers,
            max_new_tokens=self._max_new_tokens,
        )

    @property
    def score_kind(self) -> ScoreKind:
        """Token probability: ranks boxes; it is no probability of a lesion."""
        return ScoreKind.TOKEN_PROBABILITY

    def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        """Answer each view, as many together as memory allows."""
        return self.look_telling(views, volume, region, lambda _answered: None)

    def look_telling(
        self, views: Iterable[View], volume: CTVolume, region: LiverRegion, answered: Answered
    ) -> Iterator[ViewResult]:
        """Do as `look`, and tell in between how many views are answered: after every few words of all answers at hand.

        Raises
        ------
        InferenceError
            The model broke off, or not even one view fits into memory.
        """
        unread: Counter[str] = Counter()
        looked = 0

        def told(of_batch: int) -> None:
            answered(looked + of_batch)

        waiting = iter(views)
        while batch := list(islice(waiting, self._together.items)):
            try:
                results = self._results(batch, told)
            except RuntimeError as error:
                raise InferenceError(f"the model failed: {str(error).partition(chr(10))[0]}") from error
            for view, result in zip(batch, results, strict=True):
                looked += 1
                if result.failure:
                    unread[result.failure] += 1
                    # Never the answer itself: it is free text about a patient.
                    _log.info("slice %d, padding %.2f: %s", view.slice_index, view.padding, result.failure)
                yield result
        if unread:
            counts = "; ".join(f"{count} × {failure}" for failure, count in unread.most_common())
            _log.warning("%d of %d answers could not be read: %s", unread.total(), looked, counts)

    def _results(self, views: Sequence[View], answered: Answered) -> list[ViewResult]:
        frames = [SquareFrame.of(view.hu.shape, view.spacing) for view in views]
        shown = list(zip(views, frames, strict=True))
        features: list[torch.Tensor] = []
        for of_one in in_batches(shown, self._encode, size=self._encoded_together):
            features.append(of_one)
            answered(0)
        prompts = [self._questions.about(view) for view in views]
        answers = list(
            in_batches(
                range(len(views)),
                lambda part: generate(
                    self._model,
                    [prompts[at] for at in part],
                    torch.stack([features[at] for at in part]),  # here, since this, too, may be too much for the memory
                    max_new_tokens=self._max_new_tokens,
                    ended=lambda more: answered(part[0] + more),
                ),
                size=self._together,
            )
        )
        told = [self._read(frame, answer) for frame, answer in zip(frames, answers, strict=True)]
        readings: dict[int, Reading] = {}
        if self.keep_attention:
            for at, reading in self._attention(prompts, features, told):
                readings[at] = reading
                answered(len(views))
        return [_result(one, readings.get(at)) for at, one in enumerate(told)]

    @torch.inference_mode()
    def _encode(self, shown: Sequence[tuple[View, SquareFrame]]) -> list[torch.Tensor]:
        """Make features of some views: windows, square image, steering, encoder."""
        model, steering = self._model, self._steering
        side, device = model.sizes.image, model.device
        frames = [frame for _, frame in shown]
        pixels = square_images([ct_windows(view.hu) for view, _ in shown], frames, side, device)
        bias = None
        if steering.mode is not SteeringMode.OFF:
            coverage = square_coverage([view.envelope for view, _ in shown], frames, side, device)
            dilate_px = torch.tensor([steering.dilate_mm * side / frame.side_mm for frame in frames])
            patches = organ_patches(
                coverage,
                model.sizes.patch,
                pooling=steering.pooling,
                area_share=steering.area_share,
                dilate_patches=steering.dilate_patches,
                dilate_px=dilate_px,
            )
            bias = steering_bias(patches, steering.mode, steering.alpha)
        return list(image_features(model, normalised(pixels, model.dtype), bias, self._steered_layers))

    def _read(self, frame: SquareFrame, answer: Answer) -> _Told:
        text = answer.text(self._model)
        parsed = parse(text, ended=answer.ended, thinking=self._model.profile.thinking)
        if parsed.failure:
            return _Told(frame=frame, answer=answer, text=text, failure=parsed.failure)
        spans = token_spans(self._model, answer.token_ids, since=parsed.thought_until)
        boxes = []
        for box in parsed.boxes:
            placed = lesion_box(box, frame)
            if placed is not None:
                boxes.append((box, placed, coordinate_tokens(box, spans)))
        if parsed.boxes and not boxes:
            return _Told(frame=frame, answer=answer, text=text, failure=NO_LESION_BOX)
        if len(boxes) < len(parsed.boxes):
            _log.debug("%d of %d boxes are none", len(parsed.boxes) - len(boxes), len(parsed.boxes))
        tokens = tuple(at for at, (_, end) in enumerate(spans) if end > parsed.thought_until)
        return _Told(frame=frame, answer=answer, text=text, failure="", boxes=tuple(boxes), tokens=tokens)

    def _attention(
        self, prompts: Sequence[Sequence[int]], features: Sequence[torch.Tensor], told: Sequence[_Told]
    ) -> Iterator[tuple[int, Reading]]:
        """Read the answers back that could be read; gives each with its number."""
        numbers = [at for at, one in enumerate(told) if not one.failure]
        readings = in_batches(
            numbers,
            lambda part: read_answers(
                self._model,
                [prompts[at] for at in part],
                torch.stack([features[at] for at in part]),
                [told[at].answer for at in part],
                [told[at].tokens for at in part],
                self._read_layers,
            ),
            size=self._read_together,
        )
        return zip(numbers, readings, strict=True)


def _result(told: _Told, reading: Reading | None) -> ViewResult:
    if told.failure:
        return ViewResult(boxes=(), raw_text=told.text, failure=told.failure)
    boxes = tuple(
        ViewBox(
            box=placed,
            # As probable as they were when they were said: so a score does not depend on whether attention is kept.
            score=score_of(tokens, told.answer.log_probs),
            attention=_grid(told, reading, tokens),
        )
        for _, placed, tokens in told.boxes
    )
    return ViewResult(boxes=boxes, raw_text=told.text, attention=_grid(told, reading, told.tokens))


def _grid(told: _Told, reading: Reading | None, tokens: Sequence[int]) -> AttentionGrid | None:
    """Mean of some tokens' attention over the square."""
    if reading is None or reading.attention is None or not tokens:
        return None
    rows = [told.tokens.index(token) for token in tokens]
    values: npt.NDArray[np.float32] = reading.attention[rows].mean(axis=0, dtype=np.float32)
    return AttentionGrid(values=values, area=Box2D(*told.frame.area))


def _check(layers: Sequence[int], count: int, setting: str) -> None:
    if wrong := [layer for layer in layers if layer >= count]:
        raise ConfigError(
            f"detector.medgemma.{setting}: the model has layers 0 to {count - 1} there, none of number {wrong[0]}"
        )
