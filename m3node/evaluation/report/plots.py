"""``froc.png`` and ``iou_by_size.png``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3node.durable import write_over
from m3node.evaluation.ablation.conditions import Condition
from m3node.evaluation.ablation.record import Record
from m3node.evaluation.matching import box_iou
from m3node.evaluation.metrics.froc import FROC_IOU
from m3node.evaluation.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES_MM = (0.0, 10.0, 15.0, 20.0, 30.0, float("inf"))
"""Bounds of the size classes."""

_MOST = 8
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito: told apart with any kind of colour vision."""

_MARKERS = "osD^vP*X"


def write_plots(summary: Summary, out: Path) -> tuple[Path, ...]:
    """Draw the plots that there is something for; those of an earlier run that have nothing any more are removed."""
    written: list[Path] = []
    for name, figure in (("froc.png", _froc(summary)), ("iou_by_size.png", _iou_by_size(summary))):
        path = out / name
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=150)
        write_over(path, stream.getvalue())
        written.append(path)
    return tuple(written)


def best_iou_by_lesion(records: Sequence[Record]) -> list[tuple[float, float]]:
    """Return each true lesion's diameter in mm, and the best 3-D box IoU of anything found."""
    return [
        (lesion.diameter_mm, max((box_iou(found.extent, lesion.extent) for found in record.found), default=0.0))
        for record in records
        for lesion in record.truth or ()
    ]


def _shown(summary: Summary) -> list[Condition]:
    """At most so many as can be told apart: a sweep's many come after the conditions that it is compared with."""
    return sorted(summary.conditions, key=lambda condition: "." in condition.key)[:_MOST]


def _figure(summary: Summary) -> Figure:
    # Not pyplot: it keeps every figure, and chooses a back end for the whole process.
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    figure = Figure(figsize=(7.0, 5.2), layout="constrained")
    figure.suptitle(summary.label, fontsize=12)
    figure.supxlabel("\n".join(_wrapped(mark) for mark in summary.marks), fontsize=6.5, color="#666666")
    return figure


def _wrapped(text: str, width: int = 120) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _froc(summary: Summary) -> Figure | None:
    if not any(summary.curves.values()):
        return None
    figure = _figure(summary)
    axes = figure.add_subplot()
    for number, condition in enumerate(_shown(summary)):
        points = summary.curves.get(condition.key, ())
        x = [0.0, *(point.false_per_volume for point in points)]
        y = [0.0, *(point.recall for point in points)]
        axes.plot(x, y, color=_COLOURS[number], label=condition.title, linewidth=1.6, drawstyle="steps-post")
        axes.plot(x[-1:], y[-1:], color=_COLOURS[number], marker=_MARKERS[number], linestyle="none")
    axes.set_xlabel("false lesions per volume")
    axes.set_ylabel(f"recall (3-D box IoU ≥ {FROC_IOU})")
    axes.set_ylim(0.0, 1.02)
    # Room on both sides of 0, where a perfect curve stands upright.
    axes.set_xlim(-0.05, max(1.0, axes.get_xlim()[1]))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="best")
    return figure


def _iou_by_size(summary: Summary) -> Figure | None:
    if not summary.curves or not summary.lesions:
        return None
    figure = _figure(summary)
    axes = figure.add_subplot()
    places = np.arange(len(SIZES_MM) - 1)
    conditions = _shown(summary)
    counts = np.zeros(len(places), dtype=int)
    for number, condition in enumerate(conditions):
        measured = best_iou_by_lesion(summary.records[condition.key])
        size = np.array([mm for mm, _ in measured])
        best = np.array([iou for _, iou in measured])
        shift = (number - (len(conditions) - 1) / 2) * 0.09
        within = [(size >= low) & (size < high) for low, high in pairwise(SIZES_MM)]
        counts = np.array([np.count_nonzero(chosen) for chosen in within])
        means = [float(best[chosen].mean()) if chosen.any() else np.nan for chosen in within]
        for place, chosen in zip(places, within, strict=True):
            x = np.full(np.count_nonzero(chosen), place + shift)
            axes.plot(x, best[chosen], ".", color=_COLOURS[number], alpha=0.3, markersize=4)
        axes.plot(
            places + shift, means, color=_COLOURS[number], marker=_MARKERS[number], label=condition.title, linewidth=1.2
        )
    names = [f"{low:.0f}–{high:.0f}" if np.isfinite(high) else f"≥ {low:.0f}" for low, high in pairwise(SIZES_MM)]
    axes.set_xticks(places, [f"{name}\n(n = {count})" for name, count in zip(names, counts, strict=True)])
    axes.set_xlabel("longest axial diameter, mm")
    axes.set_ylabel("best 3-D box IoU (mean, and each lesion)")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25, axis="y")
    axes.legend(fontsize=8, loc="best")
    return figure
