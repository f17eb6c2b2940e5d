"""The tokens that are a model's own: they end turns, stand for images, or mean nothing yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from m3node.gemma.model import GemmaModel


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """What neither a question nor an answer is made of.

    Attributes
    ----------
    ids : frozenset of int
        Their numbers.
    texts : tuple of str
        Their texts, sorted.
    """

    ids: frozenset[int]
    texts: tuple[str, ...]


_found: WeakKeyDictionary[Any, tuple[int, OwnTokens]] = WeakKeyDictionary()
"""By tokenizer, with its size when it was looked through: Gemma's has thousands, which take longer than a question."""


def own_tokens(model: GemmaModel) -> OwnTokens:
    """Look through the tokenizer for special tokens, once for each tokenizer."""
    tokenizer: Any = model.tokenizer
    size = len(tokenizer)
    known = _found.get(tokenizer)
    if known is None or known[0] != size:
        added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        texts = {*added.values(), *tokenizer.all_special_tokens} - {""}
        own = OwnTokens(ids=frozenset({*added, *tokenizer.all_special_ids}), texts=tuple(sorted(texts)))
        known = _found[tokenizer] = size, own
    return known[1]
