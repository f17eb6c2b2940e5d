"""Plots as plain geometry, which the page's template draws: sharp at any size, in light and dark, with tooltips."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3node.attention.output.rows import Row
from m3node.drawing.heat import SCALE

WIDTH, HEIGHT = 320.0, 150.0
"""Of a histogram's bars, in its own units; labels stand outside."""

BINS = 20

CLASSES = ("right", "wrong", "open")
"""Answers that are right, wrong, or that no truth is known for; names of the page's styles too."""

TITLES = {"right": "right", "wrong": "wrong", "open": "truth not known"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in a histogram, its style, and what its tooltip says."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class Median:
    """Where the median of one kind of answers lies."""

    x: float
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """How a metric spreads.

    Attributes
    ----------
    title, about : str
        What it is of, and what it means in a sentence.
    bars : tuple of Bar
        Stacked.
    medians : tuple of Median
        One for each kind of answers.
    ticks : tuple of (float, str)
        Along the lower edge.
    most : int
        Questions in the highest bin.
    count : int
        Questions in all.
    """

    title: str
    about: str
    bars: tuple[Bar, ...]
    medians: tuple[Median, ...]
    ticks: tuple[tuple[float, str], ...]
    most: int
    count: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A square of a mean grid."""

    x: int
    y: int
    colour: str
    says: str


@dataclass(frozen=True, slots=True)
class MeanGrid:
    """The mean of many grids."""

    title: str
    side: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A grid's centre of mass in its image, 0…100, with its question's picture."""

    x: float
    y: float
    kind: str
    says: str
    link: str


def kind_of(row: Row) -> str:
    """One of `CLASSES`."""
    return "open" if row.correct is None else "right" if row.correct else "wrong"


def histogram(
    title: str,
    about: str,
    values: Sequence[tuple[float, str]],
    *,
    bounds: tuple[float, float] | None = None,
    percent: bool = True,
) -> Histogram | None:
    """Lay a histogram out; None without a value.

    Parameters
    ----------
    values : sequence of (float, str)
        Each with its kind, one of `CLASSES`.
    bounds : tuple of float, optional
        Ends of the axis; by the values when left out.
    percent : bool
        Write values as percent.
    """
    if not values:
        return None
    numbers = [value for value, _ in values]
    low, high, step = _axis(*(bounds or (min(numbers), max(numbers))))
    counts = {kind: np.zeros(BINS, dtype=int) for kind in CLASSES}
    for value, kind in values:
        counts[kind][min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))] += 1
    most = int(np.sum(list(counts.values()), axis=0).max())
    width = WIDTH / BINS
    bars = []
    for place in range(BINS):
        first, last = (low + (high - low) * (place + side) / BINS for side in (0, 1))
        y = HEIGHT
        for kind in CLASSES:
            if count := int(counts[kind][place]):
                height = count / most * HEIGHT
                y -= height
                says = (
                    f"{_shown(first, percent, step / 5)} to {_shown(last, percent, step / 5)}: {count} {TITLES[kind]}"
                )
                bars.append(Bar(place * width + 0.5, y, width - 1.0, height, kind, says))
    medians = []
    for kind in CLASSES:
        if of_kind := [value for value, its in values if its == kind]:
            middle = statistics.median(of_kind)
            says = f"median, {TITLES[kind]}: {_shown(middle, percent, step / 10)}"
            # Rounding of the axis may leave the outermost value a hair outside.
            share = min(1.0, max(0.0, (middle - low) / (high - low)))
            medians.append(Median(share * WIDTH, kind, says))
    count = round((high - low) / step)
    ticks = tuple((WIDTH * at / count, _shown(low + step * at, percent, step)) for at in range(count + 1))
    return Histogram(title, about, tuple(bars), tuple(medians), ticks, most, len(values))


def mean_grid(title: str, grids: Sequence[npt.NDArray[np.floating]]) -> MeanGrid | None:
    """Average grids; None without one, or where they have different numbers of cells."""
    if not grids or len({grid.shape for grid in grids}) > 1:
        return None
    mean = np.mean(np.stack(grids).astype(np.float64), axis=0)
    peak = float(mean.max()) or 1.0
    cells = tuple(
        Cell(column, row, _colour(mean[row, column] / peak), f"{mean[row, column] * 100.0:.2f} %")
        for row in range(mean.shape[0])
        for column in range(mean.shape[1])
    )
    return MeanGrid(f"{title} ({len(grids)})", mean.shape[0], cells)


def centres(rows: Sequence[Row]) -> tuple[Point, ...]:
    """Where the grids' centres of mass lie in their images; one that lies in the padding stands at the edge."""
    return tuple(
        Point(
            x=min(100.0, max(0.0, row.metrics.centre_column * 100.0)),
            y=min(100.0, max(0.0, row.metrics.centre_row * 100.0)),
            kind=kind_of(row),
            says=f"{row.dicom_id}: {row.question} {row.answer}",
            link=row.visualization_file,
        )
        for row in rows
        if row.metrics is not None
    )


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Widen a range to whole steps of 1, 2 or 5 times a power of ten; about five of them."""
    if high - low < 1e-9:
        low, high = low - 0.005, high + 0.005
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return first * step, max(last, first + 1) * step, step


def _shown(value: float, percent: bool, step: float) -> str:
    """Write a value with as many digits as tell steps apart."""
    scale = 100.0 if percent else 1.0
    digits = max(0, min(6, -math.floor(math.log10(step * scale) + 1e-9)))
    text = f"{value * scale:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return f"{text} %" if percent else text


def _colour(share: float) -> str:
    red, green, blue = (int(part) for part in SCALE[round(min(1.0, max(0.0, share)) * 255)])
    return f"#{red:02x}{green:02x}{blue:02x}"
