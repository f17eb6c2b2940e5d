"""docs/attention.md says what the code does: every column, every mode, every change, and what answers are taken for."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from m3node.attention.images.body import BodyKind
from m3node.attention.metrics.values import GridMetrics
from m3node.attention.output.folder import OVERLAYS, REPORT, TABLE, VISUALIZATIONS
from m3node.attention.output.rows import COLUMNS
from m3node.attention.questions.answers import normalise_answer
from m3node.attention.questions.table import REQUIRED, ColumnNames
from m3node.attention.reading.plan import Mode
from m3node.attention.robustness.kinds import KINDS
from m3node.attention.robustness.similarity import Similarity

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "attention.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def section(title: str) -> list[tuple[str, ...]]:
    """The rows of the tables below a heading, without their own headings."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert found, f"no section {title}"
    rows = [line for line in found[1].splitlines() if line.startswith("|")]
    ruled = {number for number, row in enumerate(rows) if set(row) <= set("|-")}
    kept = [row for number, row in enumerate(rows) if number not in ruled and number + 1 not in ruled]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))) for row in kept]


def names(title: str) -> list[str]:
    """What stands as code in the first cells of a section's tables."""
    return [name for row in section(title) for name in re.findall(r"`([^`]+)`", row[0])]


def test_every_column_of_the_results_is_explained_once_and_in_order() -> None:
    metrics = names("Metrics of a grid")
    assert metrics == [field.name for field in fields(GridMetrics)]
    said = names("Columns of evaluation_results.csv")
    first, last = said.index(metrics[0]), said.index(metrics[-1])
    assert last == first + 1  # "entropy … pointing_hit" stands for what the section on metrics says
    assert [*said[:first], *metrics, *said[last + 1 :]] == list(COLUMNS)


def test_every_metric_has_a_formula_and_a_range() -> None:
    assert [row[0] for row in section("Metrics of a grid") if len(row) != 3 or not row[1] or not row[2]] == []


def test_every_column_of_the_table_of_questions_is_explained() -> None:
    assert names("The table of questions") == [field.name for field in fields(ColumnNames)]
    assert [row[0].strip("`") for row in section("The table of questions") if row[1] == "required"] == list(REQUIRED)


def test_every_mode_is_explained_in_the_order_in_which_they_are_tried() -> None:
    assert names("How attention is read") == [mode.value for mode in Mode]


def test_every_change_is_explained_with_its_strength() -> None:
    rows = section("Robustness")
    changes = {row[0].strip("`"): float(row[2]) for row in rows if row[0].strip("`") in {kind.value for kind in KINDS}}
    assert changes == {kind.value: facts.default for kind, facts in KINDS.items()}
    assert {field.name for field in fields(Similarity)} <= set(names("Robustness"))


@pytest.mark.parametrize("row", section("Answers"), ids=lambda row: str(row[0]))
def test_the_examples_of_answers_are_taken_for_what_the_document_says(row: tuple[str, ...]) -> None:
    answer, closed, opened = row
    _, first, second = re.findall(r"^\| (answer) \| to \"(.*?)\" \| to \"(.*?)\" \|$", TEXT, flags=re.MULTILINE)[0]
    assert f"`{normalise_answer(answer, question=first)}`" == closed
    assert f"`{normalise_answer(answer, question=second)}`" == opened


def test_files_kinds_of_body_and_tests_that_the_document_names_are_there() -> None:
    for name in (TABLE, REPORT, f"{OVERLAYS}/{{key}}_overlay.png", f"{VISUALIZATIONS}/{{key}}_full.png"):
        assert name in TEXT
    assert BodyKind.LIVER in TEXT
    named = set(re.findall(r"`(test_\w+\.py)`", TEXT))
    assert len(named) > 5
    assert {name for name in named if not (Path(__file__).parent / name).exists()} == set()


def test_every_source_is_cited_and_every_citation_has_a_source() -> None:
    body, sources = TEXT.split("## Sources")
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", sources, flags=re.MULTILINE)}
    assert {int(number) for number in re.findall(r"\[(\d+)\]", body)} == listed
