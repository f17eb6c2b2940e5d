"""Which characters of an answer each of its tokens wrote."""

from __future__ import annotations

from collections.abc import Sequence

from m3node.gemma.generation import decode
from m3node.gemma.model import GemmaModel

Span = tuple[int, int]
"""First character and the one behind the last."""

_LONGEST = 8
"""Tokens that may have to come together before their bytes are a character."""

_BROKEN = "\ufffd"
"""Stands for bytes that are no character, or not yet."""


def token_spans(model: GemmaModel, token_ids: Sequence[int], *, since: int = 0) -> list[Span]:
    """Find each token's characters in the text that `decode` makes of all of them.

    Tokens that write a character together, byte by byte, all get that character's span. Where a tokenizer's text is not
    made of its tokens' texts one after another, what lies between the parts that are gets one span for all.

    Parameters
    ----------
    since : int
        Characters before this one are of no interest, as thinking text is: their tokens may share one span, too.
    """
    text = decode(model, token_ids)
    spans: list[Span] = [(0, 0)] * len(token_ids)
    last, end = _from_behind(model, token_ids, text, spans, since)
    first, start = _from_the_front(model, token_ids[:last], text[:end], spans) if end > since else (0, 0)
    for at in range(first, last):
        spans[at] = start, end
    return spans


def tokens_in(spans: Sequence[Span], wanted: Span) -> list[int]:
    """Return the tokens that wrote any of the wanted characters."""
    first, last = wanted
    return [at for at, (start, end) in enumerate(spans) if start < last and end > first]


def _from_behind(
    model: GemmaModel, token_ids: Sequence[int], text: str, spans: list[Span], since: int
) -> tuple[int, int]:
    """Fill in spans from behind as far as they are clear and wanted; returns the tokens and characters left."""
    last, end = len(token_ids), len(text)
    while last and end > since:
        piece = decode(model, token_ids[last - 1 : last])
        if _BROKEN in piece or not text.endswith(piece, 0, end):
            break
        last, end = last - 1, end - len(piece)
        spans[last] = end, end + len(piece)
    return last, end


def _from_the_front(model: GemmaModel, token_ids: Sequence[int], text: str, spans: list[Span]) -> tuple[int, int]:
    """Fill in spans from the front as far as they are clear; returns the first token and character that are not."""
    at, start = 0, 0
    while at < len(token_ids):
        for together in range(1, min(_LONGEST, len(token_ids) - at) + 1):
            piece = decode(model, token_ids[at : at + together])
            if _BROKEN not in piece and text.startswith(piece, start):
                break
        else:
            return at, start
        for index in range(at, at + together):
            spans[index] = start, start + len(piece)
        at, start = at + together, start + len(piece)
    return at, start
