"""What came of one question about one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.attention.reading.plan import Mode


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """An answer, and where the model looked for it.

    Attributes
    ----------
    answer : str
        Behind thinking text, without special tokens.
    ended : bool
        It ended by itself, before the token limit.
    log_prob : float
        Mean natural logarithm of the probabilities of the tokens that were read; 0 where there are none.
    grid : ndarray of float32, shape (tokens, tokens)
        How the attention spreads over the image; at least 0, adds up to 1 (all alike where nothing could be read).
    area : tuple of float
        ``(r0, c0, r1, c1)``: what the grid covers, in pixel edges of the image; reaches beyond it where padding is.
    mode : Mode
        What the grid was made by.
    passed_over : tuple of str
        For each mode that was tried and whose grid could not be used, ``"<mode>: <why>"``. The last of them is ``mode``
        itself where the grid is degenerate.
    degenerate : bool
        No mode gave a grid that says anything: the last one's is kept, and not to be trusted.
    image_share : float
        Share of the tokens' attention that went to the image at all, 0…1: mean over the read tokens and heads, and over
        the layers with the plan's weights. 0 where nothing was read.
    tokens : tuple of str
        The answer's tokens that were read; none where there was no answer, or no end to its thinking.
    terms : tuple of str
        The medical terms of the question that gate; empty where there are none.
    by_head : ndarray of float32 or None, shape (layers, heads or groups, tokens, tokens)
        Share of attention, mean over the read tokens, as the plan asks; None without tokens, too.
    """

    answer: str
    ended: bool
    log_prob: float
    grid: npt.NDArray[np.float32]
    area: tuple[float, float, float, float]
    mode: Mode
    passed_over: tuple[str, ...]
    degenerate: bool
    image_share: float
    tokens: tuple[str, ...]
    terms: tuple[str, ...]
    by_head: npt.NDArray[np.float32] | None = None
