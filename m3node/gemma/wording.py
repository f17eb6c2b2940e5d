"""Which of a prompt's tokens hold given words of its question, and which of an answer's tokens are its answer.

Both go by where characters stand, never by what a token reads like: a word may begin or end inside a token, and the
system instruction may hold the same words as the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from m3node.errors import ConfigError, InferenceError
from m3node.gemma.generation import Answer, decode
from m3node.gemma.model import GemmaModel
from m3node.gemma.own_tokens import own_tokens
from m3node.gemma.prompts import prompt_text
from m3node.gemma.spans import Span, token_spans, tokens_in

_MARK = "\ue000"
"""A character that means nothing, in place of a question."""


@dataclass(frozen=True, slots=True)
class Worded:
    """An answer without its thinking.

    Attributes
    ----------
    text : str
        Without special tokens and surrounding white space.
    tokens : tuple of int
        Places, in the whole answer, of the tokens that wrote it; neither special ones nor white space before it.
    """

    text: str
    tokens: tuple[int, ...]


def tokens_of_words(
    model: GemmaModel, question: str, prompt: Sequence[int], words: Sequence[Span]
) -> list[tuple[int, ...]]:
    """Find the tokens of a prompt that hold words of its question.

    Parameters
    ----------
    prompt : sequence of int
        What `m3node.gemma.prompts.prompt_ids` made of the question.
    words : sequence of Span
        Characters of the question.

    Returns
    -------
    list of tuple of int
        For each span, the places in the prompt of all tokens that hold any of its characters.

    Raises
    ------
    ConfigError
        The chat template changes the question's words, so that they cannot be found.
    InferenceError
        The prompt is not this question's.
    """
    if not words:
        return []
    text = prompt_text(model, question)
    spans = _spans(model, text, prompt)
    start = _start_of_question(model, question, text)
    return [tuple(tokens_in(spans, (first + start, last + start))) for first, last in words]


def worded(model: GemmaModel, answer: Answer) -> Worded:
    """Separate an answer from its thinking. A thought that was not closed has no answer behind it."""
    tokenizer: Any = model.tokenizer
    text = answer.text(model)
    until = thought_until(text, model.profile.thinking)
    if until is None:
        return Worded(text="", tokens=())
    spans = token_spans(model, answer.token_ids, since=until)
    special = own_tokens(model).ids
    # A token that writes the thinking's end and the answer's beginning together belongs to both.
    behind = [
        at
        for at, (token, (_, end)) in enumerate(zip(answer.token_ids, spans, strict=True))
        if end > until and token not in special
    ]
    blank = 0
    for at in behind:
        if text[max(spans[at][0], until) : spans[at][1]].strip():
            break
        blank += 1
    said: str = tokenizer.decode([answer.token_ids[at] for at in behind], clean_up_tokenization_spaces=False)
    return Worded(text=said.strip(), tokens=tuple(behind[blank:]))


def thought_until(text: str, thinking: tuple[str, str] | tuple[()]) -> int | None:
    """Return the character behind an answer's thinking, 0 without any; None where the last thought was not closed.

    Parameters
    ----------
    thinking : tuple of str
        As the model's profile has it.
    """
    if not thinking:
        return 0
    opening, closing = thinking
    closed = text.rfind(closing)
    until = closed + len(closing) if closed >= 0 else 0
    return until if text.find(opening, until) < 0 else None


def _start_of_question(model: GemmaModel, question: str, text: str) -> int:
    """Return where the question's first character stands in the prompt's text; before it, if the template trims it."""
    mark = _MARK
    while mark in model.profile.system:
        mark += _MARK
    before, found, behind = prompt_text(model, mark).partition(mark)
    if found and text.startswith(before) and text.endswith(behind) and mark not in behind:
        placed = text[len(before) : len(text) - len(behind)]
        if placed and (trimmed := question.find(placed)) >= 0:
            return len(before) - trimmed
        if (within := placed.find(question)) >= 0:
            return len(before) + within
    raise ConfigError(f"the chat template of {model.identity.name} changes the question: its words cannot be found")


def _spans(model: GemmaModel, text: str, prompt: Sequence[int]) -> list[Span]:
    """Return each prompt token's characters: as the tokenizer knows them, or by reading its tokens."""
    tokenizer: Any = model.tokenizer
    if tokenizer.is_fast:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], [(int(first), int(last)) for first, last in encoded["offset_mapping"]]
    else:
        spans = token_spans(model, prompt) if decode(model, prompt) == text else []
        ids = list(prompt) if spans else tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids != list(prompt):
        raise InferenceError("a prompt's tokens are not those of its question")
    if len(spans) != len(prompt):
        raise ConfigError(f"the tokenizer of {model.identity.name} does not tell where its tokens stand in a text")
    return spans
