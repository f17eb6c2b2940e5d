"""Which of the fit stacks are processed: a site's rules on kernel, thickness, description and sender."""

from __future__ import annotations

import re

from m3node.intake.series.stacks import Stack
from m3node.rejection import Reason, Rejection
from m3node.settings import SelectionRule, SelectionSettings


def select(stack: Stack, settings: SelectionSettings) -> Rejection | None:
    """Apply the rules in order; the first that matches decides.

    Returns
    -------
    Rejection or None
        ``NOT_SELECTED``, naming the rule by its number from 1; None when the stack is to be processed.
    """
    for number, rule in enumerate(settings.rules, start=1):
        if _matches(stack, rule):
            return None if rule.action == "accept" else _refused(stack, f"selection rule {number} refuses it")
    if settings.unmatched == "refuse":
        return _refused(stack, "no selection rule accepts it")
    return None


def _matches(stack: Stack, rule: SelectionRule) -> bool:
    kernels = {frame.kernel for frame in stack.frames}
    descriptions = {header.series_description for header in stack.instances}
    senders = {header.sender for header in stack.instances}
    for pattern, values in ((rule.kernel, kernels), (rule.description, descriptions), (rule.sender, senders)):
        if pattern and not any(re.search(pattern, value, re.IGNORECASE) for value in values):
            return False
    if rule.min_thickness_mm is None and rule.max_thickness_mm is None:
        return True
    thickness = _thickness(stack)
    if thickness is None:
        return False
    return (rule.min_thickness_mm or 0.0) <= thickness <= (rule.max_thickness_mm or float("inf"))


def _thickness(stack: Stack) -> float | None:
    """Slice Thickness of the stack, mm; the thickest where it varies."""
    known = [frame.slice_thickness for frame in stack.frames if frame.slice_thickness is not None]
    return max(known) if known else None


def _refused(stack: Stack, why: str) -> Rejection:
    return Rejection(
        Reason.NOT_SELECTED,
        f"series {stack.key.series_instance_uid} is not analysed: {why}",
        stack.key.label,
    )
