"""Everything that the report says, computed once and in words: the template only lays it out."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from m3node import __version__
from m3node.attention.metrics.consistency import Answered, GroupConsistency, StrategyResult, by_strategy, consistency
from m3node.attention.output.report.plots import (
    Histogram,
    MeanGrid,
    Point,
    centres,
    histogram,
    kind_of,
    mean_grid,
)
from m3node.attention.output.rows import Row
from m3node.attention.output.setup import Setup
from m3node.attention.output.visualization import metric_lines, verdict
from m3node.attention.questions.question import Question
from m3node.attention.reading.plan import Mode

SHOWN_GROUPS = 8
SHOWN_CASES = 12
SHOWN_VARIANTS = 6
SHOWN_ERRORS = 200
SHOWN_ROWS = 400
"""Most that the page shows of each; the table of results has all."""

_SHARE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number at the head of the page."""

    value: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its picture.

    Attributes
    ----------
    row : Row
        What came of it.
    kind : str
        Right, wrong, or open.
    verdict : str
        How the answer stands to the truth, in words.
    why : str
        What makes it worth looking at.
    metrics : tuple of (str, str)
        Names and values.
    """

    row: Row
    kind: str
    verdict: str
    why: str
    metrics: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Variants of one question with their pictures."""

    consistency: GroupConsistency
    cases: tuple[Case, ...]
    more: int


@dataclass(frozen=True, slots=True)
class ModeUse:
    """How often a mode gave the grid."""

    mode: str
    rows: int
    degenerate: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the page shows, from top to bottom."""

    marks: tuple[str, ...]
    made: tuple[tuple[str, str], ...]
    figures: tuple[Figure, ...]
    noise: str
    histograms: tuple[Histogram, ...]
    grids: tuple[MeanGrid, ...]
    centres: tuple[Point, ...]
    strategies: tuple[StrategyResult, ...]
    groups: tuple[Group, ...]
    modes: tuple[ModeUse, ...]
    passed_over: tuple[tuple[str, int], ...]
    worst_title: str
    worst: tuple[Case, ...]
    doubtful: tuple[Case, ...]
    errors: tuple[Row, ...]
    failed: int
    rows: tuple[Row, ...]
    total: int
    robustness: Any


def summarise(setup: Setup, questions: Sequence[Question], rows: Sequence[Row], out: Path, robustness: Any) -> Summary:
    """Compute the page.

    Parameters
    ----------
    setup : Setup
        How questions were asked.
    questions : sequence of Question
        What ``rows`` are the results of; more may be there.
    rows : sequence of Row
        In the table's order.
    out : Path
        The folder of results, whose grids are read.
    robustness : object
        What the robustness section shows; None without one.
    """
    by_key = {question.key: question for question in questions}
    answered = [row for row in rows if row.metrics is not None]
    grids = {row.key: np.load(out / row.grid_file, allow_pickle=False) for row in answered}
    compared = [
        Answered(by_key[row.key], row.answer, row.correct, grids[row.key], Mode(row.mode), bool(row.degenerate))
        for row in answered
    ]
    groups = consistency(compared)
    sound = [row for row in answered if not row.degenerate]
    # Where no grid says anything, what there is is shown, and called what it is.
    plotted = sound or answered
    worst_title, worst = _worst(answered)
    return Summary(
        marks=setup.marks,
        made=_made(setup, answered),
        figures=_figures(rows, answered, groups),
        noise=_noise(len(answered) - len(sound), len(answered)),
        histograms=_histograms(plotted, groups),
        grids=_mean_grids(sound, grids),
        centres=centres(plotted),
        strategies=tuple(by_strategy(compared)),
        groups=_shown_groups(groups, answered),
        modes=_modes(answered),
        passed_over=tuple(Counter(_shortly(why) for row in answered for why in row.passed_over).most_common()),
        worst_title=worst_title,
        worst=worst,
        doubtful=_doubtful(sound),
        errors=tuple(row for row in rows if row.error)[:SHOWN_ERRORS],
        failed=sum(bool(row.error) for row in rows),
        rows=tuple(rows)[:SHOWN_ROWS],
        total=len(rows),
        robustness=robustness,
    )


def _made(setup: Setup, answered: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    model, plan = setup.model, setup.plan
    weights = ", ".join(f"{layer} ({weight:.3g})" for layer, weight in zip(plan.layers, plan.weights, strict=True))
    even = len(set(plan.weights)) <= 1
    sides = sorted({row.image_kind for row in answered})
    return (
        ("Model", setup.label),
        ("Weights", str(model["weights"])),
        ("Profile", f"{model['profile']}, {model['dtype']}"),
        ("Order", "image first: the image's tokens do not see the question" if model["image_first"] else "text first"),
        ("Mode asked for", plan.mode.value),
        ("Layers", ", ".join(map(str, plan.layers)) if even else weights),
        ("Answer tokens read", f"the first {plan.answer_tokens}, of at most {plan.max_new_tokens}"),
        ("Body found by", setup.body),
        ("Kinds of images", ", ".join(sides)),
        ("Software", f"m3node {__version__}"),
    )


def _figures(rows: Sequence[Row], answered: Sequence[Row], groups: Sequence[GroupConsistency]) -> tuple[Figure, ...]:
    judged = [row for row in answered if row.correct is not None]
    several = [group for group in groups if group.consistent is not None]
    divergences = [group.divergence for group in several if group.divergence is not None]
    sound = [row.metrics for row in answered if row.metrics is not None and not row.degenerate]
    inside = [metrics.inside_body for metrics in sound if metrics.inside_body is not None]
    hits = [metrics.pointing_hit for metrics in sound if metrics.pointing_hit is not None]
    figures = [
        Figure(str(len(rows)), "questions", f"about {len({row.dicom_id for row in rows})} images"),
        Figure(str(sum(bool(row.error) for row in rows)), "failed", "rows with an error"),
    ]
    if judged:
        figures.append(_share("answers right", sum(row.correct is True for row in judged), len(judged)))
    if several:
        figures.append(
            _share("the same answer to all variants", sum(group.consistent is True for group in several), len(several))
        )
    if divergences:
        figures.append(Figure(f"{statistics.mean(divergences):.3f}", "mean divergence", "Jensen–Shannon, base 2, 0…1"))
    if inside:
        figures.append(Figure(f"{statistics.median(inside) * 100:.0f} %", "inside the body", "median"))
    if hits:
        figures.append(_share("pointing hits", sum(hits), len(hits)))
    if degenerate := sum(bool(row.degenerate) for row in answered):
        figures.append(Figure(str(degenerate), "degenerate grids", "not to be read"))
    return tuple(figures)


def _share(name: str, part: int, whole: int) -> Figure:
    return Figure(f"{part / whole * 100:.0f} %", name, f"{part} of {whole}")


def _histograms(answered: Sequence[Row], groups: Sequence[GroupConsistency]) -> tuple[Histogram, ...]:
    wanted: tuple[tuple[str, str, str, tuple[float, float] | None], ...] = (
        (
            "inside_body",
            "Inside the body",
            "Attention on the body; around it is nothing to see.",
            _SHARE,
        ),
        ("truth_inside", "Inside the truth", "Attention on the box or mask that the question is about.", None),
        ("entropy_normalised", "Entropy", "How evenly it spreads: 100 % is flat and says nothing.", None),
        ("focus", "Focus", "The largest cell's share.", None),
        ("border_fraction", "On the border", "The outermost cells. Much of it is a sign of a sink.", None),
        ("left_fraction", "Left half of the image", "As it is looked at, not the patient's left.", _SHARE),
        ("apical_fraction", "Apical half", "Towards the patient's head, or the image's top.", _SHARE),
    )
    found = []
    for name, title, about, bounds in wanted:
        values = [(float(value), kind_of(row)) for row in answered if (value := getattr(row.metrics, name)) is not None]
        found.append(histogram(title, about, values, bounds=bounds))
    shares = [(row.image_share, kind_of(row)) for row in answered if row.image_share is not None]
    found.append(histogram("On the image at all", "The rest of the attention went to text.", shares))
    apart = [(group.divergence, _kind_of_group(group)) for group in groups if group.divergence is not None]
    found.append(
        histogram(
            "Divergence between variants",
            "Jensen–Shannon, base 2: 0 where all wordings look alike. One a baseline question; wrong: any answer is.",
            apart,
            percent=False,
        )
    )
    return tuple(one for one in found if one is not None)


def _kind_of_group(group: GroupConsistency) -> str:
    return "open" if not group.judged else "right" if group.correct == group.judged else "wrong"


def _noise(degenerate: int, answered: int) -> str:
    if not degenerate:
        return ""
    if degenerate == answered:
        return "Every grid is degenerate: these plots show noise, and not where the model looked."
    return f"{degenerate} degenerate grids are left out."


def _mean_grids(sound: Sequence[Row], grids: dict[str, npt.NDArray[np.float32]]) -> tuple[MeanGrid, ...]:
    chosen = [
        ("all", sound),
        ("right answers", [row for row in sound if row.correct is True]),
        ("wrong answers", [row for row in sound if row.correct is False]),
    ]
    made = [mean_grid(title, [grids[row.key] for row in rows]) for title, rows in chosen]
    return tuple(grid for grid in made if grid is not None)


def _modes(answered: Sequence[Row]) -> tuple[ModeUse, ...]:
    counts = Counter(row.mode for row in answered)
    bad = Counter(row.mode for row in answered if row.degenerate)
    return tuple(ModeUse(mode.value, counts[mode.value], bad[mode.value]) for mode in Mode if counts[mode.value])


def _shortly(why: str) -> str:
    """Mode and kind of trouble, without its numbers."""
    return ": ".join(why.split(": ")[:2])


def _case(row: Row, why: str = "") -> Case:
    metrics = () if row.metrics is None else tuple(metric_lines(row.metrics))
    return Case(row, kind_of(row), verdict(row), why, metrics)


def _shown_groups(groups: Sequence[GroupConsistency], answered: Sequence[Row]) -> tuple[Group, ...]:
    """Those with a wrong answer first, then those with different ones, then by divergence.

    Different answers may all be right: a negated question has another one. What has one variant, or agrees in all, is
    left out.
    """
    several = [group for group in groups if group.consistent is not None and (not group.consistent or group.divergence)]
    several.sort(key=lambda group: (group.correct == group.judged, bool(group.consistent), -(group.divergence or 0.0)))
    members: dict[tuple[str, str, str], list[Row]] = {}
    for row in answered:
        members.setdefault(row.group, []).append(row)
    shown = []
    for group in several[:SHOWN_GROUPS]:
        rows = members[group.study_id, group.dicom_id, group.baseline]
        cases = tuple(_case(row) for row in rows[:SHOWN_VARIANTS])
        shown.append(Group(group, cases, len(rows) - len(cases)))
    return tuple(shown)


def _worst(answered: Sequence[Row]) -> tuple[str, tuple[Case, ...]]:
    """Wrong answers that looked least where they should; without truths, all answers."""
    known = any(row.correct is not None for row in answered)
    chosen = [row for row in answered if row.correct is False] if known else list(answered)
    chosen.sort(key=lambda row: (bool(row.degenerate), *_looked_well(row)))
    title = "Wrong answers that looked least where they should" if known else "Answers that looked least at the body"
    return title, tuple(_case(row, _why(row)) for row in chosen[:SHOWN_CASES])


def _doubtful(answered: Sequence[Row]) -> tuple[Case, ...]:
    """Right answers for which the model did not look where the truth, or at least the body, is."""
    chosen = [
        row
        for row in answered
        if row.correct and row.metrics is not None and (row.metrics.pointing_hit is False or _looked_well(row)[0] < 0.5)
    ]
    chosen.sort(key=_looked_well)
    return tuple(_case(row, _why(row)) for row in chosen[: SHOWN_CASES // 2])


def _looked_well(row: Row) -> tuple[float, float, str]:
    """Order of rows, the worst first: by attention in the body, then by how little it spreads."""
    assert row.metrics is not None
    inside = row.metrics.inside_body
    return (1.0 if inside is None else inside, -row.metrics.entropy_normalised, row.key)


def _why(row: Row) -> str:
    assert row.metrics is not None
    said = []
    if row.metrics.inside_body is not None:
        said.append(f"{row.metrics.inside_body * 100:.0f} % inside the body")
    if row.metrics.truth_inside is not None:
        said.append(f"{row.metrics.truth_inside * 100:.1f} % inside the truth")
    said.append(f"entropy {row.metrics.entropy_normalised * 100:.0f} %")
    if row.degenerate:
        said.append("degenerate")
    return ", ".join(said)
