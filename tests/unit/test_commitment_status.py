"""What an answer to N-ACTION means is what the conformance document says."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from m3node.delivery.commitment_scu import AskVerdict, judge_action

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


def test_the_conformance_document_says_what_each_answer_to_n_action_does() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    first = lines.index("| N-ACTION is answered with | what happens |") + 2
    said = {
        int(code, 16): verdict
        for verdict, line in zip(AskVerdict, lines[first : first + len(AskVerdict)], strict=True)
        for code in re.findall(r"0x([0-9A-F]{4})", line)
    }
    every = {status: judge_action(status)[0] for status in range(0x10000)}
    assert said == {status: verdict for status, verdict in every.items() if verdict is not AskVerdict.REFUSED}


@given(st.integers(0, 0xFFFF))
def test_every_answer_is_named_by_its_code(status: int) -> None:
    assert judge_action(status)[1].startswith(f"0x{status:04X} ")
