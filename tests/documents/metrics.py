"""The metrics as docs/monitoring.md shows them."""

from __future__ import annotations

from collections.abc import Iterable

from documents.markers import table
from m3node.metrics import families
from m3node.metrics.families import Family


def metric_tables() -> dict[str, str]:
    """All tables, by name."""
    return {
        "metrics-counted": _families(families.COUNTED),
        "metrics-seen": _families(families.SEEN),
        "metrics-words": table(
            ("metric", "label", "values"),
            (
                (f"`{family.shown}`", f"`{family.labels[-1]}`", ", ".join(f"`{word}`" for word in family.words))
                for family in families.FAMILIES
                if family.words
            ),
        ),
    }


def _families(shown: Iterable[Family]) -> str:
    rows = (
        (f"`{family.shown}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), family.text)
        for family in shown
    )
    return table(("metric", "kind", "labels", "what it says"), rows)
