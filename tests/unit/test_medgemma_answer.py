"""A model's answer is read strictly: boxes, an empty list, or a failure; never something made up."""

from __future__ import annotations

import json
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.detectors.medgemma.answer import UNITS, ParsedAnswer, parse
from m3node.detectors.medgemma.labels import Named, what_is_named

THINKING = ("<unused94>", "<unused95>")
ONE = '[{"box_2d": [10, 20, 300, 400], "label": "liver lesion"}]'
TWO = '[{"box_2d": [10, 20, 300, 400], "label": "liver lesion"}, {"box_2d": [0, 0, 1000, 5], "label": "cyst"}]'

READABLE = {
    "fenced": (f"Final Answer:\n```json\n{ONE}\n```", [(10, 20, 300, 400)]),
    "fenced without a language": (f"Final Answer:\n```\n{ONE}\n```", [(10, 20, 300, 400)]),
    "fence not closed": (f"Final Answer:\n```json\n{ONE}", [(10, 20, 300, 400)]),
    "all on one line": (f"Final Answer: ```json{ONE}```", [(10, 20, 300, 400)]),
    "bare": (f"Final Answer: {ONE}", [(10, 20, 300, 400)]),
    "bare and alone": (ONE, [(10, 20, 300, 400)]),
    "several boxes": (f"```json\n{TWO}\n```", [(10, 20, 300, 400), (0, 0, 1000, 5)]),
    "written over lines": (
        f"```json\n{json.dumps(json.loads(TWO), indent=2)}\n```",
        [(10, 20, 300, 400), (0, 0, 1000, 5)],
    ),
    "without a label": ('[{"box_2d": [1, 2, 3, 4]}]', [(1, 2, 3, 4)]),
    "label first": ('[{"label": "lesion", "box_2d": [1,2,3,4]}]', [(1, 2, 3, 4)]),
    "not ordered": ('[{"box_2d": [300, 400, 10, 20]}]', [(300, 400, 10, 20)]),
    "empty": ("Final Answer: ```json\n[]\n```", []),
    "empty and bare": ("There is no lesion in the liver. []", []),
    "empty with a blank": ("```json\n[ ]\n```", []),
    "thinking before": (f"<unused94>thought\nmaybe [{{1, or []<unused95>Final Answer:\n{ONE}", [(10, 20, 300, 400)]),
    "thinking twice": (f"<unused94>a<unused95>[]<unused94>b<unused95>{ONE}", [(10, 20, 300, 400)]),
    "thinking closed only": (f"thought<unused95>{ONE}", [(10, 20, 300, 400)]),
    "an example first": (f"The format is {ONE}\nFinal Answer:\n```json\n[]\n```", []),
    "corrected by a second list": (f"```json\n[]\n```\nOn second thought:\n```json\n{ONE}\n```", [(10, 20, 300, 400)]),
    "a bare list after a fenced one": (f"```json\n{ONE}\n```\nFinal Answer: []", []),
    "broken at first, then whole": (f"```json\n[{{'box_2d'\n```\n```json\n{ONE}\n```", [(10, 20, 300, 400)]),
    "two lists behind the final answer": (
        f'Final Answer: ```json\n[{{"box_2d": [1, 2, 3, 4]}}]\n```\nNo, rather:\n```json\n{ONE}\n```',
        [(10, 20, 300, 400)],
    ),
    "two bare lists side by side": (f'Final Answer: [{{"box_2d": [1, 2, 3, 4]}}] {ONE}', [(10, 20, 300, 400)]),
    "taken back behind the final answer": (f"Final Answer: {ONE}\nCorrection:\n```json\n[]\n```", []),
    "two final answers": (f"Final Answer: []\nFINAL ANSWER : {ONE}", [(10, 20, 300, 400)]),
    "final answer in bold": (f"[]\n**Final Answer:** {ONE}", [(10, 20, 300, 400)]),
    "brackets in prose": (f"A lesion [see segment VII] {{sic}}.\n{ONE}\nThat is all [really].", [(10, 20, 300, 400)]),
    "brackets in a label": ('[{"box_2d": [1, 2, 3, 4], "label": "a [dark] {focus}"}]', [(1, 2, 3, 4)]),
    "a box quoted in a label": (
        '[{"box_2d": [1, 2, 3, 4], "label": "\\"box_2d\\": [5, 6, 7, 8]"}]',
        [(1, 2, 3, 4)],
    ),
    "something else beside a box": ('[{"box_2d": [1, 2, 3, 4], "label": "mass", "sure": {"a": [1]}}]', [(1, 2, 3, 4)]),
    "letters beyond ASCII": ("Läsion – 肝\n" + ONE, [(10, 20, 300, 400)]),
}

UNREADABLE = {
    "an example, and no list in the end": (
        "Nothing would be ```json[]```. A lesion.\nFinal Answer: none",
        "no JSON list",
    ),
    "a first guess, and no list in the end": (
        f"First guess {ONE}. Final Answer: there are no lesions.",
        "no JSON list",
    ),
    "a first guess, and none in bold in the end": (f"First guess {ONE}. **Final Answer**: none.", "no JSON list"),
    "a first guess, and a blank before the colon": (f"First guess {ONE}. FINAL ANSWER : none.", "no JSON list"),
    "a list in the first of two final answers": (f"Final Answer: {ONE}\nFinal Answer: none", "no JSON list"),
    "a final answer in thinking": (f"<unused94>Final Answer: {ONE}<unused95>Nothing.", "no JSON list"),
    "nothing": ("", "no JSON list"),
    "prose": ("The liver is unremarkable.", "no JSON list"),
    "thinking only": ("<unused94>thought\n[]", "not closed"),
    "thinking opened again": (f"<unused94>a<unused95>{ONE}<unused94>hm", "not closed"),
    "nothing after thinking": (f"<unused94>{ONE}<unused95>", "no JSON list"),
    "an object": ('```json\n{"box_2d": [1, 2, 3, 4]}\n```', "not a list"),
    "an object around an empty list": ('{"boxes": []}', "not a list"),
    "numbers alone": ("[10, 20, 300, 400]", "something else than boxes"),
    "lists of numbers": ("[[10, 20, 300, 400]]", "something else than boxes"),
    "three numbers": ('[{"box_2d": [1, 2, 3]}]', "four numbers"),
    "five numbers": ('[{"box_2d": [1, 2, 3, 4, 5]}]', "four numbers"),
    "another key": ('[{"bbox": [1, 2, 3, 4]}]', "something else than boxes"),
    "one box bad of two": ('[{"box_2d": [1, 2, 3, 4]}, {"box_2d": "none"}]', "something else than boxes"),
    "too large": ('[{"box_2d": [1, 2, 3, 1001]}]', "no whole number"),
    "negative": ('[{"box_2d": [-1, 2, 3, 4]}]', "no whole number"),
    "fractions": ('[{"box_2d": [0.1, 0.2, 0.3, 0.4]}]', "no whole number"),
    "whole fractions": ('[{"box_2d": [1.0, 2, 3, 4]}]', "no whole number"),
    "truth values": ('[{"box_2d": [true, false, true, true]}]', "no whole number"),
    "text for numbers": ('[{"box_2d": ["1", "2", "3", "4"]}]', "no whole number"),
    "not a number": ('[{"box_2d": [NaN, 2, 3, 4]}]', "broken"),
    "leading zeros": ('[{"box_2d": [001, 2, 3, 4]}]', "broken"),
    "a number of 5,000 digits": ('[{"box_2d": [' + "1" * 5000 + ", 2, 3, 4]}]", "broken"),
    "a list of 100,000 brackets": ("[" * 100_000, "broken"),
    "100,000 lists in one another": ("[" * 100_000 + "]" * 100_000, "broken"),
    "cut within a box": ('```json\n[{"box_2d": [10, 20, 300', "broken"),
    "cut behind a box": ('[{"box_2d": [1, 2, 3, 4]},', "broken"),
    "a comma too many": ('[{"box_2d": [1, 2, 3, 4]},]', "broken"),
    "an empty list within something broken": ('[{"box_2d": [1, 2, 3, 4], "parts": [],}]', "broken"),
    "begun anew and cut at once": (f"```json\n{ONE}\n```\nOr rather: [", "broken"),
    "begun anew with an object": (f"```json\n{ONE}\n```\nOr rather: {{ ", "broken"),
    "a fence within a label": ('[{"box_2d": [1, 2, 3, 4], "label": "a ```b``` c"}]', "broken"),
    "single quotes": ("[{'box_2d': [1, 2, 3, 4]}]", "broken"),
    "whole at first, then broken": (f"```json\n{ONE}\n```\n```json\n[{{'box_2d'\n```", "broken"),
    "the same key twice": ('[{"box_2d": [1, 2, 3, 4], "box_2d": [5, 6, 7, 8]}]', "broken"),
    "two labels": ('[{"box_2d": [1, 2, 3, 4], "label": "no lesion", "label": "liver lesion"}]', "broken"),
    "a box that is denied": ('[{"box_2d": [10, 20, 300, 400], "label": "no lesion"}]', "labelled as none"),
    "a box of zeros for nothing": ('[{"box_2d": [0, 0, 0, 0], "label": "none"}]', "labelled as none"),
    "one box denied of two": (TWO.replace("cyst", "no lesion"), "labelled as none"),
    "a label that is no text": ('[{"box_2d": [1, 2, 3, 4], "label": null}]', "label that is no text"),
    "a list of labels": ('[{"box_2d": [1, 2, 3, 4], "label": ["liver lesion"]}]', "label that is no text"),
    "a denial without a box": ('[{"label": "no lesion"}]', "something else than boxes"),
    "broken between two whole lists": (f"{ONE} [{{'a' {ONE}", "broken"),
    "a broken box in the same fence": (f"```json\n[{{'box_2d'\n{ONE}\n```", "broken"),
    "a final answer that is broken": (f"{ONE}\nFinal Answer: [{{", "broken"),
    "a box within a box": ('[{"box_2d": [1, 2, 3, 4], "part": {"box_2d": [5, 6, 7, 8]}}]', "told apart"),
    "an escaped key": ('[{"box\\u005f2d": [1, 2, 3, 4]}]', "told apart"),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_is_clearly_a_list_of_boxes_is_read(name: str) -> None:
    text, boxes = READABLE[name]
    answer = parse(text, ended=True, thinking=THINKING)
    assert answer.failure == ""
    assert [(box.y0, box.x0, box.y1, box.x1) for box in answer.boxes] == boxes


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_not_is_a_failure_that_says_why(name: str) -> None:
    text, why = UNREADABLE[name]
    answer = parse(text, ended=True, thinking=THINKING)
    assert answer.boxes == ()
    assert why in answer.failure


@pytest.mark.parametrize("name", READABLE)
def test_an_answer_cut_off_at_the_token_limit_is_a_failure_whatever_it_holds(name: str) -> None:
    answer = parse(READABLE[name][0], ended=False, thinking=THINKING)
    assert (answer.boxes, answer.failure) == ((), "the answer reached the token limit")


def test_a_model_that_does_not_think_may_write_those_tokens() -> None:
    assert parse(f"<unused94>{ONE}", ended=True).failure == ""


def test_each_box_knows_what_it_is_of() -> None:
    entries = [{"box_2d": [n, 2, 3, 4], "label": label} for n, label in enumerate(("mass", "right kidney", "cyst"))]
    answer = parse(json.dumps([*entries, {"box_2d": [3, 2, 3, 4]}]), ended=True)
    assert [(box.y0, box.named) for box in answer.boxes] == [
        (0, Named.LESION),
        (1, Named.STRUCTURE),
        (2, Named.LESION),
        (3, Named.LESION),
    ]


def test_each_number_knows_where_it_stands() -> None:
    text = f"<unused94>thought {ONE}<unused95>Läsion: ```json\n{TWO}\n```"
    answer = parse(text, ended=True, thinking=THINKING)
    assert len(answer.boxes) == 2
    for box in answer.boxes:
        numbers = [int(text[first:last]) for first, last in box.spans]
        assert numbers == [box.y0, box.x0, box.y1, box.x1]
        assert all(first >= answer.thought_until for first, _ in box.spans)


def test_thinking_ends_behind_its_last_token() -> None:
    text = f"<unused94>a<unused95>b<unused94>c<unused95>{ONE}"
    assert text[parse(text, ended=True, thinking=THINKING).thought_until :] == ONE
    assert parse(ONE, ended=True, thinking=THINKING).thought_until == 0
    assert parse(f"<unused95>{ONE}", ended=True, thinking=THINKING).thought_until == len("<unused95>")
    assert parse("<unused94>a<unused95>Nothing.", ended=True, thinking=THINKING).thought_until == 21


def test_a_failure_never_quotes_the_answer() -> None:
    for text, _ in UNREADABLE.values():
        assert parse(f"DOE^JANE {text}", ended=True, thinking=THINKING).failure.find("DOE") == -1


def assert_sound(answer: ParsedAnswer, text: str) -> None:
    assert not (answer.failure and answer.boxes)
    for box in answer.boxes:
        assert all(0 <= value <= UNITS for value in (box.y0, box.x0, box.y1, box.x1))
        assert [int(text[first:last]) for first, last in box.spans] == [box.y0, box.x0, box.y1, box.x1]
    if not answer.failure:
        assert "[" in text
        assert "]" in text


PIECES = [
    *"[]{},:\"'`\\-0123456789. \n\t",
    *("```", "```json", "Final Answer:", "box_2d", '"box_2d"', '"label"', "null", "true", "NaN", "1e9", "Läsion"),
    *("no lesion", "kidney"),
    *(
        "<unused94>",
        "<unused95>",
        ONE,
        TWO,
        "[]",
        '[{"box_2d": [',
        "]}]",
        '{"box_2d": [1, 2, 3, 4]}',
        "\x00",
        "肝",
        "\ud800",
    ),
]


def test_10_000_random_answers_give_no_exception_and_no_box_outside() -> None:
    chance = random.Random(20261122)
    read = failed = 0
    for _ in range(10_000):
        text = "".join(chance.choices(PIECES, k=chance.randrange(40)))
        answer = parse(text, ended=chance.random() < 0.9, thinking=THINKING)
        assert_sound(answer, text)
        read, failed = read + (not answer.failure), failed + bool(answer.failure)
    assert read > 100  # both ways are walked
    assert failed > 5000


def test_10_000_damaged_answers_give_no_box_that_was_not_written() -> None:
    chance = random.Random(4)
    whole = [text for text, _ in READABLE.values()]
    for _ in range(10_000):
        text = chance.choice(whole)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(["", *PIECES]) + text[at + chance.randrange(3) :]
        assert_sound(parse(text, ended=True, thinking=THINKING), text)


@given(text=st.text(), ended=st.booleans())
def test_no_text_at_all_raises(text: str, ended: bool) -> None:
    assert_sound(parse(text, ended=ended, thinking=THINKING), text)


@given(
    boxes=st.lists(st.tuples(*[st.integers(0, UNITS)] * 4), max_size=6),
    labels=st.lists(st.text(max_size=12) | st.sampled_from(["no lesion", "mass"]), min_size=6, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
)
def test_whatever_boxes_are_written_are_read(
    boxes: list[tuple[int, int, int, int]], labels: list[str], indent: int | None
) -> None:
    written = [{"box_2d": list(box), "label": label} for box, label in zip(boxes, labels, strict=False)]
    answer = parse(f"Final Answer:\n```json\n{json.dumps(written, indent=indent)}\n```", ended=True)
    if any("final answer" in label.lower() or "```" in label for label in labels):
        return
    denied = any(what_is_named(entry["label"]) is Named.NOTHING for entry in written)  # type: ignore[arg-type]
    assert answer.failure == ("a box in the answer is labelled as none" if denied else "")
    if not denied:
        assert [(box.y0, box.x0, box.y1, box.x1) for box in answer.boxes] == boxes


def test_a_deep_list_does_not_depend_on_the_recursion_limit() -> None:
    depth = sys.getrecursionlimit() // 2
    assert parse("[" * depth + "]" * depth, ended=True).boxes == ()
