"""What a language model's answer says: the last JSON list of boxes in it, or why there is none to be read.

An answer is read strictly. Whatever is not clearly a list of boxes is a failure, which is counted and reported; a box,
or "no lesion", is never made out of something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from m3node.detectors.medgemma.labels import Named, what_is_named
from m3node.gemma.spans import Span
from m3node.gemma.wording import thought_until

UNITS = 1000
"""Coordinates run from 0 to this along each side of the square image."""

# Also where it is set in bold, with the colon inside or outside of it.
_FINAL = re.compile(r"final answer[\s*_]*:", re.IGNORECASE)
_SECTION = re.compile(r"```")
# What begins like JSON; a bracket in prose, as in "[see above]", does not.
_OPENING = re.compile(r"\[(?=\s*(?:[\[{\"\]0-9-]|$))|\{(?=\s*(?:[\"}]|$))")
_NUMBER = r"\s*([0-9]+)\s*"
_BOX = re.compile(rf'"box_2d"\s*:\s*\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]')


@dataclass(frozen=True, slots=True)
class UnitBox:
    """A box as it was written, in units of 0…1000 of the square image; not necessarily ordered.

    Attributes
    ----------
    y0, x0, y1, x1 : int
        Top-left corner, then the bottom-right one, as the answer has them.
    spans : tuple of Span
        Where the four numbers stand in the text, in that order.
    named : Named
        What its label calls it: a lesion, as one without a label, or another structure.
    """

    y0: int
    x0: int
    y1: int
    x1: int
    spans: tuple[Span, Span, Span, Span]
    named: Named = Named.LESION


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What was read.

    Attributes
    ----------
    boxes : tuple of UnitBox
        May be empty: an empty list is an answer.
    failure : str
        Why the answer could not be read; empty when it could. Never quotes the answer.
    thought_until : int
        Character behind the thinking text; 0 without.
    """

    boxes: tuple[UnitBox, ...]
    failure: str
    thought_until: int


class _Unreadable(ValueError):  # noqa: N818 - never leaves this module
    """The answer is none; the message says why."""


def parse(text: str, *, ended: bool, thinking: tuple[str, str] | tuple[()] = ()) -> ParsedAnswer:
    """Read an answer.

    Parameters
    ----------
    text : str
        All that the model said, with its thinking, without the token that ended it.
    ended : bool
        It ended by itself; otherwise it was cut off at the token limit, and what would have followed is not known.
    thinking : tuple of str
        The token that opens the thinking text and the one that closes it.

    Returns
    -------
    ParsedAnswer
        The boxes of the last JSON list, fenced or bare. Of several behind "Final Answer:", too, it is the last, whether
        empty or not: a model that goes on after a list corrects it. A list that is broken makes the answer unreadable,
        also when an earlier one was whole, as does any box that has not exactly four whole numbers of 0…1000, or whose
        label says that it is none ("no lesion"): an answer that gives a box and denies it says neither.
    """
    until = thought_until(text, thinking)
    try:
        if until is None:
            raise _Unreadable("the thinking text was not closed")
        if not ended:
            raise _Unreadable("the answer reached the token limit")
        first, last, value = _last_value(text, until)
        return ParsedAnswer(boxes=_boxes(text, first, last, value), failure="", thought_until=until)
    except _Unreadable as error:
        return ParsedAnswer(boxes=(), failure=str(error), thought_until=until or 0)


def _last_value(text: str, until: int) -> tuple[int, int, Any]:
    """Return where the last JSON value begins and ends, and what it is.

    Behind "Final Answer:", where an answer says that: a list of the reasoning before it is none.
    """
    until = max((match.end() for match in _FINAL.finditer(text, until)), default=until)
    borders = [until, *(border for match in _SECTION.finditer(text, until) for border in match.span()), len(text)]
    for first, last in zip(reversed(borders[:-1]), reversed(borders[1:]), strict=True):
        values = list(_values(text, first, last))
        if values:
            return values[-1]
    raise _Unreadable("the answer holds no JSON list")


def _values(text: str, first: int, last: int) -> Iterator[tuple[int, int, Any]]:
    """Give the JSON values of one section, outermost ones only."""
    at, section = first, text[:last]
    while (opening := _OPENING.search(section, at)) is not None:
        try:
            value, at = _DECODER.raw_decode(section, opening.start())
        except (ValueError, RecursionError) as error:
            # What is nested in something broken is no answer of its own: "[]" in it would read as "no lesion".
            raise _Unreadable("the JSON in the answer is broken") from error
        yield opening.start(), at, value


def _boxes(text: str, first: int, last: int, value: Any) -> tuple[UnitBox, ...]:
    if not isinstance(value, list):
        raise _Unreadable("the JSON in the answer is not a list")
    # The decoder keeps no positions. What the pattern finds must be what was decoded, else the text plays tricks.
    found = [_unit_box(match) for match in _BOX.finditer(text, first, last)]
    written = [_coordinates(entry) for entry in value]
    if [(box.y0, box.x0, box.y1, box.x1) for box in found] != written:
        raise _Unreadable("the boxes in the answer cannot be told apart")
    return tuple(replace(box, named=_named(entry)) for box, entry in zip(found, value, strict=True))


def _named(entry: dict[str, Any]) -> Named:
    label = entry.get("label", "")
    if not isinstance(label, str):
        raise _Unreadable("a box in the answer has a label that is no text")
    named = what_is_named(label)
    if named is Named.NOTHING:
        raise _Unreadable("a box in the answer is labelled as none")
    return named


def _coordinates(entry: Any) -> tuple[int, ...]:
    numbers = entry.get("box_2d") if isinstance(entry, dict) else None
    if not isinstance(numbers, list) or len(numbers) != 4:
        raise _Unreadable("the list in the answer holds something else than boxes of four numbers")
    if not all(type(number) is int and 0 <= number <= UNITS for number in numbers):
        raise _Unreadable("a box in the answer has a coordinate that is no whole number of 0 to 1000")
    return tuple(numbers)


def _unit_box(match: re.Match[str]) -> UnitBox:
    y0, x0, y1, x1 = (int(number) for number in match.groups())
    return UnitBox(y0=y0, x0=x0, y1=y1, x1=x1, spans=(match.span(1), match.span(2), match.span(3), match.span(4)))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("the same key twice")  # of two labels one may deny what the other says
    return made


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)
