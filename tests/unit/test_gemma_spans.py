"""Each token of an answer knows the characters it wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.gemma.generation import decode
from m3node.gemma.spans import token_spans, tokens_in
from tests.small_gemma import small_gemma

ANSWER = 'Final Answer:\n```json\n[{"box_2d": [10, 205, 300, 400], "label": "Läsion 肝"}]\n```'


def encoded(text: str) -> list[int]:
    tokenizer: Any = small_gemma().tokenizer
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@given(text=st.text(max_size=60))
def test_spans_lie_one_behind_the_other_and_make_up_the_text(text: str) -> None:
    model, ids = small_gemma(), encoded(text)
    spans = token_spans(model, ids)
    whole = decode(model, ids)
    assert "".join(whole[first:last] for first, last in dict.fromkeys(spans)) == whole
    assert spans == sorted(spans)


def test_the_tokens_of_a_number_are_its_digits() -> None:
    model, ids = small_gemma(), encoded(ANSWER)
    spans = token_spans(model, ids)
    at = ANSWER.index("205")
    assert decode(model, [ids[token] for token in tokens_in(spans, (at, at + 3))]) == "205"


def test_bytes_of_one_character_share_its_span() -> None:
    model = small_gemma()
    spans = token_spans(model, encoded("a肝b"))
    assert spans == [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)]
    spans = token_spans(model, encoded("肝😀ü"))
    assert spans == [(0, 1)] * 3 + [(1, 2)] * 4 + [(2, 3)] * 2


@pytest.mark.parametrize("after", ["", "b"])
def test_bytes_that_stay_without_their_last_share_the_sign_that_stands_for_them(after: str) -> None:
    model = small_gemma()
    ids = [*encoded("a"), *encoded("肝")[:2], *encoded(after)]
    assert decode(model, ids) == f"a\ufffd{after}"
    rest = [(2, 3)] * len(encoded(after))
    assert token_spans(model, ids) == [(0, 1), (1, 2), (1, 2), *rest]


def test_bytes_that_are_no_character_do_not_shift_what_stands_behind() -> None:
    model = small_gemma()
    ids = [*encoded("ok "), *encoded("肝")[:2], *encoded(" [10, 205]")]
    text = decode(model, ids)
    at = text.index("205")
    spans = token_spans(model, ids)
    assert decode(model, [ids[token] for token in tokens_in(spans, (at, at + 3))]) == "205"


@pytest.mark.parametrize("strip", [True, False])
def test_a_tokenizer_that_strips_the_first_blank_is_understood(strip: bool) -> None:
    """As SentencePiece may: the text is not the tokens' texts in a row, but at the end it is."""
    inner = small_gemma()

    class Stripping:
        def decode(self, ids: list[int], **named: Any) -> str:
            text = decode(inner, ids)
            return text.removeprefix(" ") if strip and len(ids) > 1 else text

    tokenizer: Any = Stripping()
    model = replace(inner, tokenizer=tokenizer)
    ids = encoded(" " + ANSWER)
    text = decode(model, ids)
    at = text.index("205")
    spans = token_spans(model, ids)
    assert decode(inner, [ids[token] for token in tokens_in(spans, (at, at + 3))]) == "205"


def test_no_tokens_no_spans() -> None:
    assert token_spans(small_gemma(), []) == []


def test_what_comes_before_is_not_looked_at_when_it_is_of_no_interest() -> None:
    model, ids = small_gemma(), encoded("thought 肝 Final Answer: [10, 205]")
    since = decode(model, ids).index("Final")
    spans, whole = token_spans(model, ids, since=since), token_spans(model, ids)
    tokens = [at for at, (first, _) in enumerate(whole) if first >= since]
    assert spans[tokens[0] :] == whole[tokens[0] :]
    assert set(spans[: tokens[0]]) == {(0, since)}
