"""Everything that the tables and plots of an evaluation say, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m3node import __version__
from m3node.evaluation.ablation.conditions import Condition
from m3node.evaluation.ablation.record import Record
from m3node.evaluation.ablation.running import Plan, Protocol, Run
from m3node.evaluation.cases.layout import CaseFolder
from m3node.evaluation.metrics.bootstrap import COVERAGE, MIN_PATIENTS, REPLICATES, SEED, Value, difference, evaluate
from m3node.evaluation.metrics.definitions import METRICS, Metric
from m3node.evaluation.metrics.froc import FROC_IOU, FrocPoint, froc
from m3node.notice import NOT_FOR_CLINICAL_USE

PUBLISHED_MARK = (
    "Published protocol: slice and liver were chosen by the truth. These figures say nothing of how the method does "
    "where the truth is not known."
)
PHANTOM_MARK = "Phantoms: nothing here says how well lesions are found in patients."
COMPARED = ("best_iou_2d", "recall_3d_0.3", "precision_3d_0.3", "false_lesions", "dice_3d")
COMPARED_ON_SLICES = ("best_iou_2d", "hallucination_2d", "recall_2d_0.3", "precision_2d_0.3")


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """An evaluation's results.

    Attributes
    ----------
    label : str
        What was evaluated on what, in a few words.
    marks : tuple of str
        Sentences that every file of the evaluation carries.
    conditions : tuple of Condition
        Those with a record, in the plan's order.
    records : dict
        By condition's key.
    metrics : tuple of Metric
        Those that have a meaning under the protocol.
    values : dict
        By condition's key and metric's key.
    differences : dict
        To the first condition, by key and metric's key; for every other condition.
    curves : dict
        FROC, by condition's key; empty under the published protocol.
    """

    label: str
    marks: tuple[str, ...]
    plan: Plan
    run: Run
    conditions: tuple[Condition, ...]
    records: dict[str, tuple[Record, ...]]
    metrics: tuple[Metric, ...]
    values: dict[str, dict[str, Value]]
    differences: dict[str, dict[str, Value]]
    curves: dict[str, tuple[FrocPoint, ...]]

    @property
    def lesions(self) -> int:
        """Number of true lesions."""
        return sum(len(record.truth or ()) for record in self.first)

    @property
    def first(self) -> tuple[Record, ...]:
        """Records of the first condition: one a case."""
        return self.records[self.conditions[0].key] if self.conditions else ()


def summarise(cases: Sequence[CaseFolder], plan: Plan, run: Run) -> Summary:
    """Compute all metrics of a run."""
    by_key: dict[str, tuple[Record, ...]] = {}
    for condition in plan.conditions:
        held = tuple(record for record in run.records if record.condition == condition.key)
        if held:
            by_key[condition.key] = held
    conditions = tuple(condition for condition in plan.conditions if condition.key in by_key)
    published = plan.protocol is Protocol.PUBLISHED
    metrics = tuple(metric for metric in METRICS if not (published and metric.needs_volume))
    compared = [metric for metric in metrics if metric.key in (COMPARED_ON_SLICES if published else COMPARED)]
    used = {record.case for record in run.records}
    folders = [case for case in cases if case.name in used]
    phantoms = bool(folders) and all(case.phantom for case in folders)
    identity = next(iter(run.identities.values()))
    return Summary(
        label=f"{identity.name}, {'phantoms' if phantoms else 'cases'}",
        marks=(
            *((PUBLISHED_MARK,) if published else ()),
            *((PHANTOM_MARK,) if phantoms else ()),
            " ".join(f"{identity.name} {identity.version} {identity.weights}".split()),
            NOT_FOR_CLINICAL_USE,
        ),
        plan=plan,
        run=run,
        conditions=conditions,
        records=by_key,
        metrics=metrics,
        values={key: {metric.key: evaluate(metric, held) for metric in metrics} for key, held in by_key.items()},
        differences={
            condition.key: {
                metric.key: difference(metric, by_key[condition.key], by_key[conditions[0].key]) for metric in compared
            }
            for condition in conditions[1:]
        },
        curves={} if published else {key: froc(held) for key, held in by_key.items()},
    )


def kind_of(record: Record) -> str:
    """What is known of a case."""
    return "unknown" if record.truth is None else "lesions" if record.truth else "healthy"


def as_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as ``results.json`` and ``--json`` hold it."""
    kinds = [kind_of(record) for record in summary.first]
    return {
        "schema": "m3node.evaluation/1",
        "label": summary.label,
        "marks": list(summary.marks),
        "software_version": __version__,
        "protocol": summary.plan.protocol.value,
        "liver": "truth" if summary.plan.protocol is Protocol.PUBLISHED else summary.plan.liver.value,
        "cases": {
            "lesions": kinds.count("lesions"),
            "healthy": kinds.count("healthy"),
            "unknown": kinds.count("unknown"),
            "patients": len({record.patient for record in summary.first}),
            "true_lesions": summary.lesions,
        },
        "unusable": [asdict(item) for item in summary.run.unusable],
        "intervals": {
            "method": "percentile bootstrap by patient",
            "coverage": COVERAGE,
            "replicates": REPLICATES,
            "seed": SEED,
            "fewest_patients": MIN_PATIENTS,
        },
        "froc_iou": FROC_IOU,
        "conditions": [
            {
                "key": condition.key,
                "title": condition.title,
                "shown": condition.shown.value,
                "detector": asdict(summary.run.identities[condition.key]),
                "metrics": {key: asdict(value) for key, value in summary.values[condition.key].items()},
                "minus_first": {
                    key: asdict(value) for key, value in summary.differences.get(condition.key, {}).items()
                },
                "froc": [asdict(point) for point in summary.curves.get(condition.key, ())],
            }
            for condition in summary.conditions
        ],
        "records_reused": summary.run.reused,
    }
