"""Asks questions about an image and reads back where the model looked for each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from m3node.attention.images.image import InputImage
from m3node.attention.questions.terms import TermList
from m3node.attention.reading.grids import gated, mean_grid, spread, what_is_wrong
from m3node.attention.reading.looked import Looked
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.errors import InferenceError
from m3node.gemma.batches import BatchSize, in_batches
from m3node.gemma.encoder import image_features
from m3node.gemma.generation import Answer, decode, generate
from m3node.gemma.gradients import read_relevance
from m3node.gemma.heads import Heads
from m3node.gemma.images import SquareFrame, normalised, square_images
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.gemma.reading import Reading, read_answers
from m3node.gemma.rollout import read_rollout
from m3node.gemma.wording import Worded, tokens_of_words, worded

_TOGETHER = 16
"""Questions about one image that are answered together; halved when memory runs out."""

Result = TypeVar("Result")

_Question = tuple[str, tuple[int, ...]]
"""Its text, and its prompt."""

NO_TOKENS = "the answer has no words"
"""Why nothing was read."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One question, answered.

    Attributes
    ----------
    prompt : tuple of int
        As token ids.
    terms : tuple of str
        The medical terms in it.
    term_tokens : tuple of int
        Places of their tokens in the prompt, each once.
    said : Worded
        The answer without its thinking.
    rows : tuple of int
        Places, in the answer, of the tokens that are read.
    """

    prompt: tuple[int, ...]
    terms: tuple[str, ...]
    term_tokens: tuple[int, ...]
    answer: Answer
    said: Worded
    rows: tuple[int, ...]


class Looker:
    """Answers questions about images, and says where the model looked.

    Parameters
    ----------
    model : GemmaModel
        Loaded; several may share one.
    plan : ReadingPlan
        How attention is read.
    terms : TermList
        What a question's medical terms are.
    """

    def __init__(self, model: GemmaModel, plan: ReadingPlan, terms: TermList) -> None:
        self._model, self._plan, self._terms = model, plan, terms
        self._together = BatchSize(_TOGETHER)

    def features(self, image: InputImage) -> torch.Tensor:
        """Encode an image once, for all questions about it.

        Returns
        -------
        Tensor, shape (tokens², hidden size)
            On the model's device.

        Raises
        ------
        InferenceError
            The model broke off, or memory ran out.
        """
        return _guarded(lambda: next(in_batches([image], self._encode, size=1)))

    def ask(self, features: torch.Tensor, image: InputImage, texts: Sequence[str]) -> list[Looked]:
        """Ask questions about one image.

        Parameters
        ----------
        features : Tensor
            What `features` made of the image.
        image : InputImage
            The image.
        texts : sequence of str
            The questions.

        Returns
        -------
        list of Looked
            One a question, in order. In float32 none depends on what else is asked.

        Raises
        ------
        ConfigError
            A question holds one of the model's own tokens, such as the image's; the others are not answered either.
        InferenceError
            The model broke off, or not even one question fits into memory.
        """
        area = SquareFrame.of(image.shape, image.spacing).area
        questions = [(text, tuple(prompt_ids(self._model, text))) for text in texts]
        return _guarded(
            lambda: list(
                in_batches(questions, lambda part: self._looked_together(features, area, part), size=self._together)
            )
        )

    @torch.inference_mode()
    def _encode(self, images: Sequence[InputImage]) -> list[torch.Tensor]:
        model = self._model
        frames = [SquareFrame.of(image.shape, image.spacing) for image in images]
        pixels = square_images([image.rgb for image in images], frames, model.sizes.image, model.device)
        last = model.sizes.vision_layers - 1
        return list(image_features(model, normalised(pixels, model.dtype), None, (0, last)))

    def _looked_together(
        self, features: torch.Tensor, area: tuple[float, float, float, float], questions: Sequence[_Question]
    ) -> list[Looked]:
        """Answer, read back and weigh some questions; what generation left behind is gone with them."""
        prompts = [prompt for _, prompt in questions]
        batch = features[None].expand(len(questions), -1, -1)
        limit = self._plan.max_new_tokens
        answers = generate(self._model, prompts, batch, max_new_tokens=limit, keep_prompts=True)
        asked = [self._asked(text, prompt, one) for (text, prompt), one in zip(questions, answers, strict=True)]
        # One pass, which serves both raw and gated.
        readings = read_answers(
            self._model,
            prompts,
            batch,
            [_read_part(one) for one in asked],
            [one.rows for one in asked],
            self._plan.layers,
            "all",
            words=[one.term_tokens for one in asked],
        )
        return [self._looked(features, area, *one) for one in zip(asked, readings, strict=True)]

    def _asked(self, text: str, prompt: tuple[int, ...], answer: Answer) -> _Asked:
        spans = self._terms.spans(text)
        tokens = tokens_of_words(self._model, text, prompt, spans)
        said = worded(self._model, answer)
        return _Asked(
            prompt=prompt,
            terms=tuple(text[first:last] for first, last in spans),
            term_tokens=tuple(sorted({token for term in tokens for token in term})),
            answer=answer,
            said=said,
            rows=said.tokens[: self._plan.answer_tokens],
        )

    def _looked(
        self, features: torch.Tensor, area: tuple[float, float, float, float], asked: _Asked, reading: Reading
    ) -> Looked:
        shares = reading.attention
        assert shares is not None
        grid, mode, passed_over, degenerate = self._grid(features, asked, reading)
        rows = list(asked.rows)
        return Looked(
            answer=asked.said.text,
            ended=asked.answer.ended,
            log_prob=float(reading.log_probs[rows].mean(dtype=np.float64)) if rows else 0.0,
            grid=spread(grid),
            area=area,
            mode=mode,
            passed_over=passed_over,
            degenerate=degenerate,
            image_share=float(mean_grid(shares, self._plan.weights).sum()) if rows else 0.0,
            tokens=tuple(decode(self._model, [asked.answer.token_ids[at]]) for at in rows),
            terms=asked.terms,
            by_head=_by_head(shares, self._plan.heads, self._model.sizes.key_heads),
        )

    def _grid(
        self, features: torch.Tensor, asked: _Asked, reading: Reading
    ) -> tuple[npt.NDArray[np.float64], Mode, tuple[str, ...], bool]:
        """Make the first grid that says something, from the plan's mode on."""
        modes = list(Mode)[list(Mode).index(self._plan.mode) :]
        side = self._model.sizes.tokens
        grid, mode = np.zeros((side, side)), modes[0]
        if not asked.rows:
            return grid, mode, (f"{mode}: {NO_TOKENS}",), True
        passed_over = []
        for mode in modes:
            if mode is Mode.GATED and not asked.term_tokens:
                passed_over.append(f"{mode}: no medical term in the question")
                continue
            grid = self._made(mode, features, asked, reading)
            wrong = what_is_wrong(grid)
            if not wrong:
                return grid, mode, tuple(passed_over), False
            passed_over.append(f"{mode}: {wrong}")
        return grid, mode, tuple(passed_over), True

    def _made(self, mode: Mode, features: torch.Tensor, asked: _Asked, reading: Reading) -> npt.NDArray[np.float64]:
        shares, words, weights = reading.attention, reading.words, self._plan.weights
        assert shares is not None
        assert words is not None
        match mode:
            case Mode.GATED:
                return mean_grid(gated(shares, words), weights)
            case Mode.RAW:
                return mean_grid(shares, weights)
            case Mode.GRADCAM:
                found = read_relevance(self._model, asked.prompt, features, asked.answer, asked.rows, self._plan.layers)
                return mean_grid(found.image, weights)
            case Mode.ROLLOUT:
                rolled = read_rollout(self._model, asked.prompt, features, asked.answer, asked.rows)
                mean: npt.NDArray[np.float64] = rolled.mean(axis=0, dtype=np.float64)
                return mean


def _read_part(asked: _Asked) -> Answer:
    """Cut an answer behind the last token that is read: what follows does not change what led to it."""
    last = asked.rows[-1] + 1 if asked.rows else 0
    return replace(asked.answer, token_ids=asked.answer.token_ids[:last], log_probs=asked.answer.log_probs[:last])


def _by_head(shares: npt.NDArray[np.float32], heads: Heads, key_heads: int) -> npt.NDArray[np.float32] | None:
    """Mean over the answer's tokens: (layers, heads or groups, tokens, tokens)."""
    if heads == "mean" or not len(shares):
        return None
    by_head: npt.NDArray[np.float32] = shares.mean(axis=0, dtype=np.float32)
    if heads == "all":
        return by_head
    layers, _, *cells = by_head.shape
    groups: npt.NDArray[np.float32] = by_head.reshape(layers, key_heads, -1, *cells).mean(axis=2)
    return groups


def _guarded(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except RuntimeError as error:
        raise InferenceError(f"the model failed: {str(error).partition(chr(10))[0]}") from error
