"""The table of questions: a CSV file, read whole and strictly, so that nothing is asked that was not meant.

What makes the table doubtful is an error that names line and column. What makes a single question unanswerable (no
text, an image that is not there) is not: that row fails by itself, and the run goes on.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from m3node.attention.questions.question import BASELINE, Question
from m3node.errors import ConfigError

REQUIRED = ("dicom_id", "study_id", "question", "answer")
"""Columns that a table has to have, by this program's names."""

DELIMITERS = (",", ";", "\t")

_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0+)?")
"""Also as tools write it that know no whole numbers beside empty cells."""

_NAMED_AT_ONCE = 5
"""Mistakes of one kind that a message names."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What the table calls each column.

    Attributes
    ----------
    dicom_id, study_id, question, answer : str
        Required.
    baseline_question, question_variant, variant_index, strategy : str
        Of hard positives: the same question in other words.
    truth_box, truth_mask : str
        Where in the image the answer is to be seen.
    """

    dicom_id: str = "dicom_id"
    study_id: str = "study_id"
    question: str = "question"
    answer: str = "answer"
    baseline_question: str = "baseline_question"
    question_variant: str = "question_variant"
    variant_index: str = "variant_index"
    strategy: str = "strategy"
    truth_box: str = "truth_box"
    truth_mask: str = "truth_mask"

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ColumnNames:
        """Take the table's names by this program's, as ``--column`` gives them.

        Raises
        ------
        ConfigError
            This program has no column of such a name.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(f"no column is called {unknown[0]!r} here; there are {', '.join(known)}")
        return cls(**given)


def read_questions(path: Path, columns: ColumnNames | None = None) -> list[Question]:
    """Read the table of questions.

    UTF-8, with or without byte order mark; separated by commas, semicolons or tabs; a cell in double quotes may hold
    all of them, and line breaks. Columns that are not known are not looked at.

    Parameters
    ----------
    path : Path
        The CSV file.
    columns : ColumnNames, optional
        What it calls its columns.

    Returns
    -------
    list of Question
        In the table's order, no two with one key. A row without a question is among them, with an empty ``text``.

    Raises
    ------
    ConfigError
        The table cannot be read, lacks a column, or holds what cannot be meant; by line and column.
    """
    columns = columns or ColumnNames()
    text = _decoded(path)
    delimiter = _delimiter(text, columns)
    records = _records(path, text, delimiter)
    _, header = next(records, (1, []))
    if not header:
        raise ConfigError(f"{path.name} is empty; it needs a line of column names and one line a question")
    places = _places(path, header, columns)
    rows = [_Row(path, line, cells, places, len(header)) for line, cells in records]
    questions = _told_apart(path, [row.question(columns) for row in rows])
    if not questions:
        raise ConfigError(f"{path.name} holds no question: there is no line below that of the column names")
    return questions


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the table of questions {path} cannot be read: {error.strerror}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path.name} is UTF-16; save it as CSV in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path.name}, line {line}: not UTF-8; save the table as CSV in UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(f"{path.name}, line {line}: holds a NUL; it is damaged, or no CSV file in UTF-8")
    return text


def _delimiter(text: str, columns: ColumnNames) -> str:
    """The one that finds most of the columns in the first line, or most columns at all."""
    wanted = {_plain(getattr(columns, field.name)) for field in fields(columns)}

    def found(delimiter: str) -> tuple[int, int]:
        try:
            header = next((cells for _, cells in _split(text, delimiter)), [])
        except csv.Error:
            return 0, 0
        return len(wanted & {_plain(cell) for cell in header}), len(header)

    return max(DELIMITERS, key=found)


def _split(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records that hold anything, each with the line that it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    before = 0
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield before + 1, cells
        before = reader.line_num


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Do as `_split`, with a message that says where it breaks off."""
    line = 1
    try:
        for line, cells in _split(text, delimiter):
            yield line, cells
    except csv.Error as error:
        what = str(error)
        if "field larger" in what:
            what = f"a cell is longer than {csv.field_size_limit():,} characters; perhaps a quote is not closed"
        elif "unexpected end" in what:
            what = "a quote is not closed before the end of the file"
        raise ConfigError(f"{path.name}, below line {line}: {what}") from error


def _plain(name: str) -> str:
    return name.strip().casefold()


def _places(path: Path, header: Sequence[str], columns: ColumnNames) -> dict[str, int]:
    """Where each column stands, by this program's name for it."""
    names = [_plain(cell) for cell in header]
    places, missing = {}, []
    for field in fields(columns):
        theirs = getattr(columns, field.name)
        count = names.count(_plain(theirs))
        if count > 1:
            raise ConfigError(f"{path.name}, line 1: two columns are called {theirs!r}")
        if count:
            places[field.name] = names.index(_plain(theirs))
        elif field.name in REQUIRED or theirs != field.default:
            missing.append(theirs)
    if missing:
        raise ConfigError(
            f"{path.name} has no column {_listed(missing)}; it has {_listed([cell.strip() for cell in header])}. "
            "Other names are told by --column NAME=COLUMN"
        )
    return places


@dataclass(frozen=True, slots=True)
class _Row:
    """A record of the table; reads its cells and says where they are wrong."""

    path: Path
    line: int
    cells: Sequence[str]
    places: Mapping[str, int]
    width: int

    def question(self, columns: ColumnNames) -> Question:
        """What the row asks."""
        if len(self.cells) < self.width or any(cell.strip() for cell in self.cells[self.width :]):
            raise ConfigError(
                f"{self.path.name}, line {self.line}: {len(self.cells)} cells, but {self.width} columns have a name; "
                "a text that holds the separator needs double quotes"
            )
        asked, variant = self.cell("question"), self.cell("question_variant")
        text = variant or asked
        baseline = self.cell("baseline_question") or asked or text
        return Question(
            line=self.line,
            dicom_id=self.cell("dicom_id"),
            study_id=self.cell("study_id"),
            text=text,
            baseline=baseline,
            variant_index=self._index(columns, is_baseline=text == baseline),
            strategy=self.cell("strategy"),
            truth=self.cell("answer"),
            truth_box=self._box(columns),
            truth_mask=self._mask(columns),
        )

    def cell(self, name: str) -> str:
        """A cell without the white space around it; empty where the table has no such column."""
        return self.cells[self.places[name]].strip() if name in self.places else ""

    def wrong(self, column: str, what: str) -> ConfigError:
        """Say where."""
        return ConfigError(f"{self.path.name}, line {self.line}, column {column}: {what}")

    def _index(self, columns: ColumnNames, *, is_baseline: bool) -> int:
        """``variant_index``; where it is not given, `BASELINE` or `_UNNUMBERED`."""
        cell = self.cell("variant_index")
        if not cell:
            return BASELINE if is_baseline else _UNNUMBERED
        found = _WHOLE.fullmatch(cell)
        if found is None:
            raise self.wrong(columns.variant_index, f"{_short(cell)} is no whole number from 0")
        return int(found[1])

    def _box(self, columns: ColumnNames) -> tuple[float, float, float, float] | None:
        cell = self.cell("truth_box")
        if not cell:
            return None
        try:
            r0, c0, r1, c1 = (float(number) for number in re.split(r"[\s,;]+", cell.strip("[]() ")))
        except ValueError:
            raise self.wrong(columns.truth_box, f"{_short(cell)} is not four numbers r0 c0 r1 c1") from None
        if not all(math.isfinite(edge) for edge in (r0, c0, r1, c1)) or r1 <= r0 or c1 <= c0:
            raise self.wrong(columns.truth_box, f"{_short(cell)} is no box r0 c0 r1 c1 with r0 < r1 and c0 < c1")
        return r0, c0, r1, c1

    def _mask(self, columns: ColumnNames) -> str:
        cell = self.cell("truth_mask")
        parts = {*PurePosixPath(cell).parts, *PureWindowsPath(cell).parts}
        if ".." in parts or PurePosixPath(cell).is_absolute() or PureWindowsPath(cell).anchor:
            raise self.wrong(columns.truth_mask, f"{_short(cell)} does not lie below the folder of images")
        return cell


_UNNUMBERED = -1


def _told_apart(path: Path, questions: Sequence[Question]) -> list[Question]:
    """Number the variants that the table does not number, and refuse what is asked twice."""
    taken: dict[tuple[str, str, str], set[int]] = {}
    for question in questions:
        taken.setdefault(question.group, set()).add(question.variant_index)
    first: dict[tuple[tuple[str, str, str], str], int] = {}
    twice: list[str] = []
    told: list[Question] = []
    for question in questions:
        line = first.setdefault((question.group, question.text), question.line)
        # Rows without a question ask nothing twice; each fails by itself, under a key of its own.
        again = line != question.line and not question.text
        if line != question.line and question.text:
            twice.append(f"lines {line} and {question.line}")
        index = question.variant_index
        if index == _UNNUMBERED or again:
            index = _free(taken[question.group])
            taken[question.group].add(index)
        told.append(replace(question, variant_index=index))
    if twice:
        raise ConfigError(
            f"{path.name} asks the same question about the same image twice: {_listed(twice, quoted=False)}; "
            "asked twice it would count twice"
        )
    return told


def _free(taken: set[int]) -> int:
    number = BASELINE + 1
    while number in taken:
        number += 1
    return number


def _listed(names: Iterable[str], *, quoted: bool = True) -> str:
    every = [_short(name) if quoted else name for name in names]
    few = every if quoted else every[:_NAMED_AT_ONCE]
    return ", ".join(few) + (f" and {len(every) - len(few)} more" if len(every) > len(few) else "")


def _short(cell: str) -> str:
    """A cell for a message: on one line, and not too much of it."""
    return repr(cell if len(cell) <= 40 else cell[:40] + "…")
