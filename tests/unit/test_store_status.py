"""What an archive's answer to a C-STORE means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.delivery.status import Verdict, judge_status


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (0x0000, 0x0000, Verdict.STORED),
        (0x0111, 0x0111, Verdict.STORED),
        (0xB000, 0xBFFF, Verdict.STORED),
        (0xA700, 0xA7FF, Verdict.AGAIN),
        (0xA900, 0xA9FF, Verdict.REFUSED),
        (0xC000, 0xCFFF, Verdict.REFUSED),
        (0x0122, 0x0122, Verdict.REFUSED),
    ],
)
def test_each_status_of_a_class_means_the_same(first: int, last: int, verdict: Verdict) -> None:
    assert {judge_status(status)[0] for status in range(first, last + 1)} == {verdict}


@given(st.integers(0, 0xFFFF))
def test_every_status_is_judged_and_named_by_its_code(status: int) -> None:
    verdict, words = judge_status(status)
    assert isinstance(verdict, Verdict)
    assert words.startswith(f"0x{status:04X} ")


def test_a_status_that_the_standard_does_not_know_is_never_taken_for_stored() -> None:
    known = {0x0000, 0x0001, 0x0107, 0x0111, 0x0116, *range(0xB000, 0xC000)}
    assert {s for s in range(0x10000) if judge_status(s)[0] is Verdict.STORED} == known
