"""Tasks that teach the vision encoder where things are; they are dropped when the model is done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from m3node.evaluation.test_model.answers import NUMBERS, closeness
from m3node.evaluation.test_model.examples import Example
from m3node.gemma.images import UNITS, square_coverage

_MIN_CELL_SHARE = 0.25
_WAVES = 24
_CENTRE_WEIGHT = 6.0
_LESION_WEIGHT = 4.0


class Helpers(nn.Module):
    """Heads on patches (liver, lesion, its edges) and on image tokens (is a lesion's middle here; where are its edges).

    Parameters
    ----------
    hidden : int
        Width of the vision encoder.
    width : int
        Width of the image tokens.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.waves: torch.Tensor
        self.patch = nn.Linear(hidden, 2)
        self.centre = nn.Linear(width, 1)
        # Waves along the coordinate, not a weight for each number: what is learnt of one serves its neighbours.
        self.patch_edges, self.edges = (nn.Linear(size, 4 * 2 * _WAVES) for size in (hidden, width))
        for head in (self.patch_edges, self.edges):
            nn.init.zeros_(head.weight)
        turns = torch.arange(1, _WAVES + 1) * torch.from_numpy(NUMBERS / UNITS)[:, None] * torch.pi
        self.register_buffer("waves", torch.cat([turns.sin(), turns.cos()], dim=1).float())

    def loss(
        self, patches: torch.Tensor, tokens: torch.Tensor, examples: Sequence[Example], sigma: float
    ) -> torch.Tensor:
        """Add up the helpers' losses.

        Parameters
        ----------
        patches : Tensor, shape (batch, patches, hidden)
            The encoder's last states.
        tokens : Tensor, shape (batch, tokens, width)
            The projector's.
        """
        side = round(patches.shape[1] ** 0.5)
        frames = [example.frame for example in examples]
        shares = torch.stack(
            [
                square_coverage([getattr(example, name) for example in examples], frames, side, "cpu").flatten(1)
                for name in ("liver", "lesion")
            ],
            dim=2,
        ).clamp(0, 1)
        weights = torch.tensor([1.0, _LESION_WEIGHT])
        dense = F.binary_cross_entropy_with_logits(
            self.patch(patches), shares, weight=1.0 + (weights - 1.0) * (shares > 0.3), reduction="mean"
        )
        centres, owned, edges = _cells(examples, round(tokens.shape[1] ** 0.5), sigma)
        present = F.binary_cross_entropy_with_logits(
            self.centre(tokens)[:, :, 0], centres, pos_weight=torch.tensor(_CENTRE_WEIGHT)
        )
        where = self._where(self.edges(tokens[owned]), edges)
        _, owned, edges = _cells(examples, side, sigma)
        where = where + self._where(self.patch_edges(patches[owned]), edges)
        return 2.0 * dense + 4.0 * present + 0.5 * where

    def _where(self, amplitudes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        if not len(amplitudes):
            return torch.zeros(())
        logits = amplitudes.view(-1, 4, 2 * _WAVES) @ self.waves.T
        return -(edges * F.log_softmax(logits, dim=2)).sum(dim=2).mean()


def _cells(examples: Sequence[Example], side: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each cell: does a lesion's middle lie in it, does it own a lesion, and that lesion's edges."""
    size = UNITS / side
    centres = np.zeros((len(examples), side, side), dtype=np.float32)
    owner = np.full((len(examples), side, side), -1)
    edges: list[np.ndarray] = []
    low = np.arange(side) * size
    for index, example in enumerate(examples):
        best = np.full((side, side), _MIN_CELL_SHARE)
        for y0, x0, y1, x1 in example.boxes:
            down = np.clip(np.minimum(low + size, y1) - np.maximum(low, y0), 0, None) / size
            across = np.clip(np.minimum(low + size, x1) - np.maximum(low, x0), 0, None) / size
            share = down[:, None] * across
            middle = min(side - 1, int((y0 + y1) / 2 / size)), min(side - 1, int((x0 + x1) / 2 / size))
            centres[index][middle] = 1.0
            share[middle] = 2.0
            owner[index][share > best] = len(edges)
            best = np.maximum(best, share)
            edges.append(np.stack([closeness(value, sigma) for value in (y0, x0, y1, x1)]))
    flat = owner.reshape(len(examples), -1)
    wanted = np.stack([edges[number] for number in flat[flat >= 0]]) if (flat >= 0).any() else np.zeros((0, 4, 1))
    return (
        torch.from_numpy(centres.reshape(len(examples), -1)),
        torch.from_numpy(flat >= 0),
        torch.from_numpy(wanted).float(),
    )
