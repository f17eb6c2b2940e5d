"""What the runbook quotes is what the node says; what it tells to type exists."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import m3node
from m3node.cli.main import build_parser

ROOT = Path(m3node.__file__).parents[1]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
INCIDENTS = re.findall(r"^## (\d+) (.+)$", RUNBOOK, flags=re.MULTILINE)


def said() -> str:
    """Every text in the package's code, those of one expression put together, with a gap where values go."""
    texts = []
    for path in sorted((ROOT / "m3node").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\n" for part in node.values)
                )
    return "\n".join(texts)


def test_it_has_ten_incidents_and_a_way_to_each() -> None:
    assert [int(number) for number, _ in INCIDENTS] == list(range(1, 11))
    for number, title in INCIDENTS:
        anchor = re.sub(r"[^a-z0-9 ]", "", f"{number} {title}".lower()).replace(" ", "-")
        assert f"| [{number}](#{anchor}) |" in RUNBOOK


@pytest.mark.parametrize(("number", "title"), INCIDENTS, ids=[number for number, _ in INCIDENTS])
def test_each_says_how_it_shows(number: str, title: str) -> None:
    _, _, rest = RUNBOOK.partition(f"## {number} {title}\n")
    assert re.search(r"\*\*(Shows|Away)|it says|says why", rest.partition("\n## ")[0])


def test_what_it_quotes_is_what_the_node_says() -> None:
    text = said()
    quoted = [
        cell
        for line in RUNBOOK.splitlines()
        if line.startswith("| `")
        for cell in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    ]
    quoted += ["NOTHING IS TAKEN IN", "rejected an association from", "the database cannot be used"]
    words = [piece.strip() for cell in quoted for piece in re.split("…|\\(…\\)", cell)]
    words = [piece for piece in words if len(piece) > 3 and not piece.startswith("0x")]
    assert len(words) > 15
    assert [piece for piece in words if piece not in text] == []


def test_the_alerts_that_it_names_exist() -> None:
    rules = (ROOT / "configs" / "prometheus" / "m3node.rules.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"M3node[A-Za-z]+", RUNBOOK))
    assert len(named) >= 8
    assert named <= set(re.findall(r"alert: (\w+)", rules))


def test_the_commands_that_it_names_are_understood() -> None:
    blocks = re.findall(r"```\n(.*?)```", RUNBOOK, flags=re.DOTALL)
    spans = re.findall(r"`(m3node [a-z][^`]*)`", RUNBOOK)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("m3node ")] + spans
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line.replace("UID", "1.2.3").replace("SLOT", "0"))[1:]
        if words == ["serve"]:
            continue
        build_parser(words[0]).parse_args(words)
