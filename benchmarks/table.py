"""One way to print a comparison: ratios of paired runs, so that a busy machine slows both sides alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class RatioRow:
    """One comparison.

    Attributes
    ----------
    name : str
        What was done.
    ours, rival : sequence of float
        Seconds (or bytes) of each run; run ``i`` of both took place one right after the other.
    bar : float or None
        The largest ratio ours/rival that is good enough; None when the row only informs.
    """

    name: str
    ours: Sequence[float]
    rival: Sequence[float]
    bar: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours ÷ rival, pair by pair."""
        return [a / b for a, b in zip(self.ours, self.rival, strict=True)]

    @property
    def met(self) -> bool:
        """Whether the median ratio is within the bar."""
        return self.bar is None or median(self.ratios) <= self.bar


def print_ratios(title: str, rows: Sequence[RatioRow]) -> bool:
    """Print a table of ratios, pair by pair.

    Parameters
    ----------
    title : str
        What is compared, on what input.
    rows : sequence of RatioRow
        The comparisons.

    Returns
    -------
    bool
        Whether every bar is met.
    """
    table = Table(title=title, title_justify="left")
    for heading in ("what", "ours", "rival", "ratio (median)", "min–max", "bar", "met"):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    all_met = True
    for row in rows:
        all_met &= row.met
        table.add_row(
            row.name,
            f"{median(row.ours):.3g}",
            f"{median(row.rival):.3g}",
            f"{median(row.ratios):.2f}",
            f"{min(row.ratios):.2f}–{max(row.ratios):.2f}",
            "" if row.bar is None else f"≤ {row.bar:g}",
            "" if row.bar is None else ("yes" if row.met else "NO"),
        )
    Console(width=120).print(table)
    return all_met
