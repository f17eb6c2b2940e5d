"""A site's rules choose among the fit stacks; the first rule that matches decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from m3node.intake.series.selection import select
from m3node.intake.series.stacks import Stack, group_stacks
from m3node.rejection import Reason
from m3node.settings import SelectionRule, SelectionSettings
from made_stacks import ct_slices


@pytest.fixture
def stack() -> Stack:
    """Kernel Br38f, 2 mm, "Abdomen venös", from PACS."""
    headers = [replace(h, series_description="Abdomen venös") for h in ct_slices([0.0, 2.0], kernel="Br38f\\3")]
    (made,) = group_stacks(headers)
    return made


def selected(stack: Stack, *rules: SelectionRule, unmatched: str = "accept") -> bool:
    return select(stack, SelectionSettings.model_validate({"rules": rules, "unmatched": unmatched})) is None


def test_without_rules_everything_is_selected(stack: Stack) -> None:
    assert selected(stack)


@pytest.mark.parametrize(
    ("criteria", "matches"),
    [
        ({"kernel": "^br3"}, True),
        ({"kernel": "b60"}, False),
        ({"description": "VENÖS|portal"}, True),
        ({"description": "arterial"}, False),
        ({"sender": "pacs"}, True),
        ({"sender": "CT1"}, False),
        ({"min_thickness_mm": 1.5, "max_thickness_mm": 2.0}, True),
        ({"min_thickness_mm": 2.0, "max_thickness_mm": 2.5}, True),
        ({"max_thickness_mm": 1.9}, False),
        ({"min_thickness_mm": 2.1}, False),
        ({"kernel": "br", "description": "arterial"}, False),
        ({}, True),
    ],
)
def test_a_rule_matches_when_all_it_says_does(stack: Stack, criteria: dict[str, object], matches: bool) -> None:
    refuse = SelectionRule.model_validate({"action": "refuse", **criteria})
    accept = SelectionRule.model_validate({"action": "accept", **criteria})
    assert selected(stack, refuse) is not matches
    assert selected(stack, accept, unmatched="refuse") is matches


def test_the_first_rule_that_matches_decides(stack: Stack) -> None:
    accept, refuse = SelectionRule(action="accept", kernel="br"), SelectionRule(action="refuse")
    assert selected(stack, accept, refuse)
    assert not selected(stack, refuse, accept)


def test_a_refusal_names_its_rule(stack: Stack) -> None:
    rules = (SelectionRule(action="accept", kernel="b60"), SelectionRule(action="refuse"))
    refusal = select(stack, SelectionSettings(rules=rules))
    assert refusal is not None
    assert refusal.reason is Reason.NOT_SELECTED
    assert "selection rule 2 refuses it" in refusal.message
    unmatched = select(stack, SelectionSettings(unmatched="refuse"))
    assert unmatched is not None
    assert "no selection rule accepts it" in unmatched.message


def test_an_unknown_thickness_matches_no_bound_and_any_rule_without_one() -> None:
    (stack,) = group_stacks(ct_slices([0.0, 2.0], slice_thickness=None))
    assert selected(stack, SelectionRule(action="refuse", max_thickness_mm=5.0))
    assert not selected(stack, SelectionRule(action="refuse"))


def test_a_varying_thickness_is_judged_by_the_thickest_slice() -> None:
    (stack,) = group_stacks(ct_slices([0.0], slice_thickness=2.0) + ct_slices([2.0], slice_thickness=3.0))
    assert selected(stack, SelectionRule(action="refuse", max_thickness_mm=2.5))
    assert not selected(stack, SelectionRule(action="refuse", min_thickness_mm=2.5))


def test_a_broken_expression_is_a_wrong_setting() -> None:
    with pytest.raises(ValidationError, match=r"kernel\n.*not a regular expression"):
        SelectionRule(action="refuse", kernel="(")
