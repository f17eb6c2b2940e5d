"""How attention is read: mode, layers and their weights, heads, tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from m3node.gemma.heads import Heads


class Mode(StrEnum):
    """What a grid is made of, in the order in which one stands in for the one before."""

    GATED = "gated"
    RAW = "raw"
    GRADCAM = "gradcam"
    ROLLOUT = "rollout"


ANSWER_TOKENS = 8
"""How many of the answer's first tokens are read, when nothing else is asked for."""

MAX_NEW_TOKENS = 128
"""Longest answer, when nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """How attention is read.

    Attributes
    ----------
    mode : Mode
        The first to try.
    layers : tuple of int
        Language layers, from 0.
    weights : tuple of float
        One a layer, adding up to 1.
    heads : Heads
        What is kept beside the grid: nothing for ``mean``, else a grid for each layer and group of heads, or head.
    answer_tokens : int
        How many of the answer's first tokens are read, after thinking.
    max_new_tokens : int
        Longest answer, thinking included.
    """

    mode: Mode
    layers: tuple[int, ...]
    weights: tuple[float, ...]
    heads: Heads = "mean"
    answer_tokens: int = ANSWER_TOKENS
    max_new_tokens: int = MAX_NEW_TOKENS
