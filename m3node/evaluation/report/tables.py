"""``results.csv``, ``results.json`` and ``results.md``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from m3node.durable import write_over
from m3node.evaluation.ablation.running import Protocol
from m3node.evaluation.metrics.bootstrap import MIN_PATIENTS, Value
from m3node.evaluation.metrics.definitions import Metric
from m3node.evaluation.report.summary import Summary, as_json, kind_of

_GROUPS = (
    ("published", "Published metrics"),
    ("lesion", "Per lesion, in 3-D"),
    ("slice", "Per lesion and slice"),
    ("reading", "Reading"),
)
_MOST_COLUMNS = 3
"""Values come with their intervals; recall and precision come in threes."""


def write_tables(summary: Summary, out: Path) -> tuple[Path, ...]:
    """Write the three files, each whole or not at all."""
    contents = {
        "results.csv": _csv(summary),
        "results.json": json.dumps(as_json(summary), indent=1, ensure_ascii=False) + "\n",
        "results.md": markdown(summary),
    }
    for name, content in contents.items():
        write_over(out / name, content.encode())
    return tuple(out / name for name in contents)


def _csv(summary: Summary) -> str:
    """One row a condition and case, one a case that could not be used; sums over cases are left to the reader."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    facts = ("protocol", "condition", "case", "patient", "kind", "true_lesions", "found_lesions", "boxes", "slices")
    columns = (*facts, "views", "views_read", *(metric.key for metric in summary.metrics), "unusable", "note")
    writer.writerow(columns)
    note = " ".join(summary.marks)
    for condition in summary.conditions:
        for record in summary.records[condition.key]:
            terms = [metric.term(record) for metric in summary.metrics]
            writer.writerow(
                (
                    summary.plan.protocol.value,
                    condition.key,
                    record.case,
                    record.patient,
                    kind_of(record),
                    "" if record.truth is None else len(record.truth),
                    len(record.found),
                    len(record.boxes),
                    len(record.slices),
                    record.views_total,
                    record.views_read,
                    *(f"{above / below:.6g}" if below else "" for above, below in terms),
                    "",
                    note,
                )
            )
    for item in summary.run.unusable:
        row = {"protocol": summary.plan.protocol.value, "case": item.case, "unusable": item.reason, "note": note}
        writer.writerow([row.get(column, "") for column in columns])
    return stream.getvalue()


def markdown(summary: Summary) -> str:
    """Write the tables that a person reads."""
    kinds = [kind_of(record) for record in summary.first]
    patients = len({record.patient for record in summary.first})
    published = summary.plan.protocol is Protocol.PUBLISHED
    liver = "true liver" if published else f"{summary.plan.liver.value} liver"
    lines = [
        f"# Evaluation: {summary.label}",
        "",
        *(f"**{mark}**" + "  " for mark in summary.marks),
        "",
        f"{_many(kinds.count('lesions'), 'case')} with {_many(summary.lesions, 'lesion')}, "
        f"{kinds.count('healthy')} healthy, {kinds.count('unknown')} without truth; {_many(patients, 'patient')}; "
        f"{'the slice with the largest lesion, by the truth' if published else 'all slices with liver'}; {liver}.",
        f"In brackets the 95 % interval from resampled patients; none below {MIN_PATIENTS} of them. – where there is "
        "nothing to divide by.",
        "",
    ]
    for group, title in _GROUPS if summary.conditions else ():
        metrics = [metric for metric in summary.metrics if metric.group == group]
        if metrics:
            lines += [f"## {title}", ""]
        for first in range(0, len(metrics), _MOST_COLUMNS):
            lines += [*_table(summary, metrics[first : first + _MOST_COLUMNS], summary.values), ""]
    if summary.differences:
        compared = [metric for metric in summary.metrics if metric.key in next(iter(summary.differences.values()))]
        lines += [
            f"## Difference to “{summary.conditions[0].title}”",
            "",
            "The same patients are resampled in both; an interval that holds 0 shows no difference.",
            "",
            *_table(summary, compared, summary.differences, signed=True),
            "",
        ]
    if summary.run.unusable:
        lines += ["## Not used", "", *(f"- {item.case}: {item.reason}" for item in summary.run.unusable), ""]
    return "\n".join(lines)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _table(
    summary: Summary, metrics: Sequence[Metric], values: dict[str, dict[str, Value]], *, signed: bool = False
) -> list[str]:
    rows = [
        "| condition | " + " | ".join(metric.title for metric in metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
    ]
    for condition in summary.conditions:
        if condition.key in values:
            cells = [shown(values[condition.key][metric.key], signed=signed) for metric in metrics]
            rows.append(f"| {condition.title} | " + " | ".join(cells) + " |")
    return rows


def shown(value: Value, *, signed: bool = False) -> str:
    """Write a value with its interval."""
    if value.value is None:
        return "–"
    form = "{:+.2f}" if signed else "{:.2f}"
    # Rounded first, and + 0.0: there is no −0.00.
    text, low, high = (
        "" if number is None else form.format(round(number, 2) + 0.0) for number in (value.value, value.low, value.high)
    )
    return f"{text} ({low}…{high})" if low and high else text
