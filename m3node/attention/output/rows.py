"""``evaluation_results.csv``: what came of each question, one row each, in the order of the table of questions."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from m3node.attention.metrics.values import GridMetrics

METRICS: tuple[str, ...] = tuple(field.name for field in fields(GridMetrics))
"""Columns of the grid's metrics, in the order of `GridMetrics`."""

_BEFORE = (
    *("key", "line", "study_id", "dicom_id", "question", "baseline_question", "variant_index", "strategy"),
    *("answer", "ground_truth", "correct"),
)
_BEHIND = (
    *("mode", "asked_mode", "passed_over", "degenerate", "layers", "image_share", "log_prob", "ended", "terms"),
    *("image_kind", "model", "error"),
    *("image_file", "grid_file", "meta_file", "heads_file", "overlay_file", "visualization_file"),
)
COLUMNS: tuple[str, ...] = (*_BEFORE, *METRICS, *_BEHIND)
"""The header of the table, in order; docs/attention.md says what each is."""

_LIST = "; "
"""Between the parts of a cell that holds several."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula; a Japanese one also the wide signs."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one question.

    Attributes
    ----------
    key : str
        `Question.key`.
    line : int
        Of the table of questions.
    study_id, dicom_id, question, baseline_question, variant_index, strategy, ground_truth
        As the table of questions has them; ``question`` is what was asked.
    answer : str
        What the model said.
    correct : bool or None
        None where the truth is not known, or nothing was said.
    metrics : GridMetrics or None
        None where there is no grid.
    mode, asked_mode : str
        What the grid is made of, and what was to be tried first.
    passed_over : tuple of str
        Modes tried before ``mode``, and why their grids could not be used.
    degenerate : bool or None
        No mode gave a grid that says anything.
    layers : tuple of int
        Language layers that were read, from 0.
    image_share, log_prob : float or None
        As `Looked` has them.
    ended : bool or None
        The answer ended by itself.
    terms : tuple of str
        Medical terms found in the question.
    image_kind : str
        What the image was taken for.
    model : str
        Which model answered; says so where it is a test model.
    error : str
        Why there is no answer; empty where there is one.
    image_file : str
        Below the folder of images.
    grid_file, meta_file, heads_file, overlay_file, visualization_file : str
        Below the folder of results; empty for what there is not.
    """

    key: str
    line: int
    study_id: str
    dicom_id: str
    question: str
    baseline_question: str
    variant_index: int
    strategy: str
    ground_truth: str
    asked_mode: str
    model: str
    answer: str = ""
    correct: bool | None = None
    metrics: GridMetrics | None = None
    mode: str = ""
    passed_over: tuple[str, ...] = ()
    degenerate: bool | None = None
    layers: tuple[int, ...] = ()
    image_share: float | None = None
    log_prob: float | None = None
    ended: bool | None = None
    terms: tuple[str, ...] = ()
    image_kind: str = ""
    error: str = ""
    image_file: str = ""
    grid_file: str = ""
    meta_file: str = ""
    heads_file: str = ""
    overlay_file: str = ""
    visualization_file: str = ""

    @property
    def group(self) -> tuple[str, str, str]:
        """What variants of one baseline question about one image share."""
        return self.study_id, self.dicom_id, self.baseline_question

    def cells(self) -> dict[str, str]:
        """Return the row's cells by column."""
        values = {column: getattr(self, column) for column in (*_BEFORE, *_BEHIND)}
        values |= dict.fromkeys(METRICS) if self.metrics is None else asdict(self.metrics)
        return {column: _cell(values[column]) for column in COLUMNS}

    def as_json(self) -> dict[str, Any]:
        """Return the row as its record holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> Row:
        """Make the row that `as_json` gave.

        Raises
        ------
        TypeError, ValueError, KeyError
            It is of another shape.
        """
        names = {field.name for field in fields(cls)}
        if set(held) != names:
            raise ValueError("a row has other fields")
        values = dict(held)
        for name in ("passed_over", "layers", "terms"):
            values[name] = tuple(values[name])
        if values["metrics"] is not None:
            values["metrics"] = GridMetrics(**values["metrics"])
        return cls(**values)


def table(rows: Iterable[Row]) -> bytes:
    """Lay rows out as CSV (RFC 4180: commas, CRLF) in UTF-8, with the header `COLUMNS`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(row.cells() for row in rows)
    return text.getvalue().encode("utf-8", errors="replace")


def guarded(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula; plain numbers stay as they are."""
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, tuple):
        return guarded(_LIST.join(str(part) for part in value))
    return guarded(str(value))
