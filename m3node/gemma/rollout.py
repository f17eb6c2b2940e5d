"""Attention rollout: what of the image reaches a token through all layers, each layer's attention applied in turn.

With ``A[l]`` the attention of layer ``l``, mean over its heads, and ``I`` the identity that stands for the residual
connection, it is the product of all ``0.5 · A[l] + 0.5 · I`` (Abnar and Zuidema, "Quantifying Attention Flow in
Transformers", ACL 2020). Of the product only the image's columns are kept: it is begun with those of the identity, and
each layer is multiplied on as it comes by. No more than some rows of one layer's attention exist at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from m3node.errors import InferenceError
from m3node.gemma.attention import ROWS_AT_ONCE, make_readable, softmax_rows
from m3node.gemma.generation import Answer, padded, read_in
from m3node.gemma.model import GemmaModel
from m3node.gemma.reading import image_span


class RolloutRows:
    """Multiplies layers on as they come by, for one sequence without padding.

    Parameters
    ----------
    tokens : int
        Length of the sequence.
    columns : tuple of int
        First key whose column is kept, and the one behind the last.
    device : torch.device
        Where the model is.
    """

    def __init__(self, tokens: int, columns: tuple[int, int], device: torch.device) -> None:
        first, last = columns
        self._product = torch.zeros(tokens, last - first, device=device)
        self._product[first:last] = torch.eye(last - first, device=device)
        self._layers = 0

    def take(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float
    ) -> None:
        """Multiply a layer on, as `m3node.gemma.attention.AttentionRows.take` is shown it."""
        if layer != self._layers:
            raise InferenceError(f"layer {layer} came where layer {self._layers} was due")
        through = torch.empty_like(self._product)
        for rows in torch.arange(len(through), device=through.device).split(ROWS_AT_ONCE):
            attention = softmax_rows(query, key, mask, scaling, rows[None])[0].mean(dim=(0, 1))
            through[rows] = 0.5 * (attention @ self._product) + 0.5 * self._product[rows]
        self._product = through
        self._layers += 1

    def result(self, layers: int) -> torch.Tensor:
        """Return the product of so many layers: [tokens, columns].

        Raises
        ------
        InferenceError
            The pass did not go through this implementation.
        """
        if self._layers != layers:
            raise InferenceError(f"attention was read in {self._layers} of {layers} layers")
        return self._product


@torch.inference_mode()
def read_rollout(
    model: GemmaModel, prompt: Sequence[int], features: torch.Tensor, answer: Answer, rows: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Roll out one answer's attention over all language layers.

    Parameters
    ----------
    prompt : sequence of int
        The question.
    features : Tensor, shape (tokens², hidden size)
        The image.
    answer, rows
        As for `m3node.gemma.reading.read_answers`, of one answer; at least one row.

    Returns
    -------
    ndarray of float32, shape (rows, tokens, tokens)
        What reached each wanted token's query of each image token; at most 1 over the image in all.
    """
    make_readable(model)
    batch = padded(model, [[*prompt, *answer.token_ids[: max(rows)]]])
    wanted = RolloutRows(batch.ids.shape[1], image_span(model, prompt), model.device)
    read_in(model, batch, features[None], use_cache=False, attention_rows=wanted)
    side = model.sizes.tokens
    found = wanted.result(model.sizes.language_layers)[[len(prompt) - 1 + row for row in rows]]
    grids: npt.NDArray[np.float32] = found.unflatten(-1, (side, side)).cpu().numpy()
    return grids
