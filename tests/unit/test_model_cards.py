"""Each detector has a model card, and its figures are those that were measured, and no others."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from m3node.detectors.registry import GROUP
from m3node.gemma.files import weights_digest
from m3node.gemma.profile import load_profile
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.settings import ModelSettings, SteeringSettings

ROOT = Path(__file__).resolve().parents[2]
CARDS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "model-cards").glob("*.md"))}
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
TEST_MODEL = ROOT / "m3node" / "gemma" / "test_model"
MEASURED_2D = (TEST_MODEL / "README.md").read_text(encoding="utf-8")

SECTIONS = (
    "Details",
    "Intended use",
    "Not intended",
    "Factors",
    "Training data",
    "Measured quality",
    "Limits",
    "Ethics",
)


def section(card: str, heading: str) -> str:
    return CARDS[card].split(f"\n## {heading}\n")[1].split("\n## ")[0]


def figures(card: str) -> dict[str, list[str]]:
    """The lines of a card's tables of figures, by the name of each."""
    found = re.findall(r"<!-- figures: (.*?) -->\n(.*?)<!-- end -->", CARDS[card], flags=re.DOTALL)
    return {name: table.splitlines() for name, table in found}


def table_of(text: str, first_cell: str) -> list[str]:
    """The lines of the first table whose heading begins with a cell."""
    lines = text.splitlines()
    start = next(
        number for number, line in enumerate(lines) if line.startswith(f"| {first_cell} |".replace("|  |", "| |"))
    )
    end = next(number for number, line in enumerate(lines[start:], start) if not line.startswith("|"))
    return lines[start:end]


def test_every_detector_of_the_package_has_a_card_and_so_has_the_test_model() -> None:
    own = {point.name for point in entry_points(group=GROUP) if point.value.startswith("m3node.")}
    assert own == {"contrast", "medgemma"}
    assert CARDS.keys() == own | {"test-model"}


@pytest.mark.parametrize("card", CARDS)
def test_a_card_has_the_sections_of_mitchell_et_al_and_none_is_empty(card: str) -> None:
    assert tuple(re.findall(r"^## (.*)$", CARDS[card], flags=re.MULTILINE)) == SECTIONS
    assert [heading for heading in SECTIONS if len(section(card, heading).split()) < 8] == []


@pytest.mark.parametrize("card", CARDS)
def test_a_card_says_that_it_is_for_no_clinical_use(card: str) -> None:
    said = " ".join(CARDS[card].lower().split())
    assert NOT_FOR_CLINICAL_USE.split(".")[0].lower() in said or "for no medical use" in said


def test_the_figures_on_3d_phantoms_are_those_of_the_evaluation() -> None:
    assert figures("contrast") == {"`contrast`": table_of(EVALUATION, "`contrast`")}
    shown = figures("test-model")
    assert shown.keys() == {"2-D", "test model"}
    assert shown["test model"] == table_of(EVALUATION, "test model")
    assert len(shown["test model"]) == 7


def test_the_figures_on_2d_phantoms_are_those_that_lie_beside_the_weights() -> None:
    assert figures("test-model")["2-D"] == table_of(MEASURED_2D, "")
    assert "346" in figures("test-model")["2-D"][2]


def test_a_figure_that_was_changed_would_be_seen() -> None:
    changed = EVALUATION.replace("0.62 (0.57…0.67)", "0.63 (0.57…0.67)")
    assert changed != EVALUATION
    assert figures("contrast")["`contrast`"] != table_of(changed, "`contrast`")


@pytest.mark.parametrize("card", CARDS)
def test_no_number_of_measured_quality_stands_outside_its_tables_and_the_documents(card: str) -> None:
    measured, _, claimed = section(card, "Measured quality").partition("**Claims of others")
    allowed = EVALUATION + MEASURED_2D + "0.3"  # the IoU of tests/unit/test_contrast_on_real_ct.py
    assert [number for number in re.findall(r"\d+\.\d+", measured) if number not in allowed] == []
    assert "phantom" in measured.lower() or not re.search(r"\d\.\d", measured)
    assert bool(claimed) == (card == "medgemma")


def test_what_others_claim_is_called_a_claim_and_stands_nowhere_else() -> None:
    claimed = section("medgemma", "Measured quality").partition(
        "**Claims of others, none of them checked by m3node:**"
    )[2]
    assert "0.0098 → 0.3769" in claimed
    assert "one slice of one patient, chosen by the truth" in claimed
    assert [card for card, text in CARDS.items() if "0.3769" in text.replace(claimed, "")] == []
    assert "**By m3node: nothing.**" in section("medgemma", "Measured quality")


def test_the_card_of_medgemma_names_model_terms_and_steering_as_they_are() -> None:
    details, steering = section("medgemma", "Details"), SteeringSettings()
    first, last = load_profile("medgemma-1.5").steered_layers
    assert ModelSettings().model in details
    assert f"{steering.mode}, α = {steering.alpha:g}, layers {first}–{last}" in details
    assert "not part of m3node and not distributed" in details
    assert "https://developers.google.com/health-ai-developer-foundations/terms" in details
    assert not list((ROOT / "m3node").rglob("*medgemma*.safetensors"))


def test_the_card_of_the_test_model_names_its_weights() -> None:
    assert f"`{weights_digest(TEST_MODEL)[:8]}…`" in section("test-model", "Details")


@pytest.mark.parametrize("card", CARDS)
def test_a_cards_links_and_paths_lead_somewhere(card: str) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", CARDS[card]) if "://" not in target]
    assert [target for target in targets if not (ROOT / "docs" / "model-cards" / target).exists()] == []
    named = re.findall(r"`((?:m3node|tests)/[A-Za-z0-9_./]+)`", CARDS[card])
    assert [path for path in named if not (ROOT / path).exists()] == []
