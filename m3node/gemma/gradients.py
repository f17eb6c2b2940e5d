"""How much an answer's probability hangs on each share of attention: rows inside the graph, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from m3node.errors import InferenceError
from m3node.gemma.attention import make_readable, softmax_rows
from m3node.gemma.generation import Answer, padded, read_in
from m3node.gemma.model import GemmaModel
from m3node.gemma.reading import image_span
from m3node.gemma.tails import read_tails


class GradientRows:
    """Computes some rows of some layers itself, so that the pass depends on them and gradients reach them.

    What lies below the lowest of these layers is not in the graph: nothing there needs a gradient.

    Parameters
    ----------
    queries : Tensor of int64, shape (sequences, rows)
        Positions whose rows are computed here.
    layers : sequence of int
        Layers in which they are, from 0.
    """

    def __init__(self, queries: torch.Tensor, layers: Sequence[int]) -> None:
        self._queries = queries
        self._layers = tuple(layers)
        self._rows: dict[int, torch.Tensor] = {}

    def attend(  # noqa: PLR0917 - what an attention layer is made of
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        attended: torch.Tensor,
    ) -> torch.Tensor:
        """Put this layer's rows in place of what came out for them.

        Parameters
        ----------
        query, key, value, mask, scaling
            As for `m3node.gemma.attention.AttentionRows.take`.
        attended : Tensor, shape (sequences, tokens, query heads, head size)
            What the layer's attention gave.

        Returns
        -------
        Tensor of the same shape
            To go on with.
        """
        if layer not in self._layers:
            return attended
        shares = softmax_rows(query, key, mask, scaling, self._queries)
        if not shares.requires_grad:
            shares.requires_grad_()
        self._rows[layer] = shares
        # [sequences, key heads, heads a group, rows, size] -> [sequences, rows, query heads, size]
        summed = torch.matmul(shares, value[:, :, None].float()).flatten(1, 2).transpose(1, 2)
        sequences = torch.arange(len(self._queries), device=attended.device)[:, None]
        return attended.index_put((sequences, self._queries), summed.to(attended.dtype))

    def relevance(self, target: torch.Tensor) -> torch.Tensor:
        """Multiply each share with the gradient of ``target`` and cut off below 0.

        Returns
        -------
        Tensor of float32, shape (sequences, rows, layers, query heads, tokens)

        Raises
        ------
        InferenceError
            The pass did not go through this implementation, or the model lacks a layer.
        """
        if len(self._rows) != len(self._layers):
            raise InferenceError(f"attention was computed in {len(self._rows)} of {len(self._layers)} layers")
        rows = [self._rows[layer] for layer in self._layers]
        slopes = torch.autograd.grad(target, rows)
        products = [(row.detach() * slope).relu() for row, slope in zip(rows, slopes, strict=True)]
        return torch.stack(products, dim=1).flatten(2, 3).permute(0, 3, 1, 2, 4)


@dataclass(frozen=True, slots=True, eq=False)
class Relevance:
    """What an answer hung on.

    Attributes
    ----------
    image : ndarray of float32, shape (rows, layers, query heads, tokens, tokens)
        ``max(0, A · ∂y/∂A)`` of each share ``A`` of attention to an image token, ``y`` the sum of the wanted tokens'
        log-probabilities. Earlier tokens' rows count what they did for later tokens, too.
    log_probs : ndarray of float32, shape (rows,)
        The wanted tokens' log-probabilities.
    """

    image: npt.NDArray[np.float32]
    log_probs: npt.NDArray[np.float32]


def read_relevance(  # noqa: PLR0917 - an answer and all that led to it
    model: GemmaModel,
    prompt: Sequence[int],
    features: torch.Tensor,
    answer: Answer,
    rows: Sequence[int],
    layers: Sequence[int],
) -> Relevance:
    """Find what one answer's tokens hung on, in one pass forward and one back.

    Gradients run through the layers from the lowest wanted one on; the weights themselves have none. Where the answer
    holds its prompt's states, they run through the answer's tokens only: no prompt hangs on what comes after it.

    Parameters
    ----------
    prompt : sequence of int
        The question.
    features : Tensor, shape (tokens², hidden size)
        The image.
    answer, rows, layers
        As for `m3node.gemma.reading.read_answers`, of one answer; at least one row and one layer.
    """
    make_readable(model)
    network: Any = model.network
    first, last = image_span(model, prompt)
    # Tensors of inference mode cannot take part in a graph: all that does is made, or copied, in here.
    with torch.inference_mode(mode=False), torch.enable_grad():
        # Where each query stands that produced a wanted token, among those of the pass.
        start = len(prompt) - 1 if answer.states is None else 0
        queries = torch.tensor([[start + row for row in rows]], device=model.device)
        said = torch.tensor([answer.token_ids[row] for row in rows], device=model.device)
        wanted = GradientRows(queries, layers)
        said_before = answer.token_ids[: max(rows)]
        if answer.states is None:
            batch = padded(model, [[*prompt, *said_before]])
            hidden = read_in(model, batch, features[None], use_cache=False, attention_graph=wanted)
        else:
            hidden = read_tails(model, [prompt], [answer.states], [said_before], attention_graph=wanted)
        logits = network.lm_head(hidden[0, queries[0]]).float()
        log_probs = logits.log_softmax(dim=-1).gather(-1, said[:, None])[:, 0]
        relevance = wanted.relevance(log_probs.sum())[0, ..., first:last]
    side = model.sizes.tokens
    return Relevance(
        image=relevance.unflatten(-1, (side, side)).cpu().numpy(), log_probs=log_probs.detach().cpu().numpy()
    )
