"""Asks all questions of a table and leaves rows, grids and pictures, each question's whole or not at all.

Questions about one image go together: it is read and encoded once. While the model works on it, the next is read.
Nothing but rows is kept of what is done, however many images there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from m3node.attention.images.body import BodyKind, find_body
from m3node.attention.images.finding import ImageFolder
from m3node.attention.images.image import InputImage
from m3node.attention.images.liver import LiverOutlines
from m3node.attention.images.masks import read_mask
from m3node.attention.images.reading import read_image
from m3node.attention.metrics.truth import box_mask
from m3node.attention.output.folder import REPORT, TABLE
from m3node.attention.output.keeping import Asked, Shelf, Shown, keep_failure, keep_result
from m3node.attention.output.record import Held, digest_of, read_record
from m3node.attention.output.rows import Row, table
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked
from m3node.durable import write_over
from m3node.errors import ConfigError, ImageError, M3NodeError
from m3node.progress import Progress

NO_QUESTION = "the row has no question; fill in the column question"


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run.

    Attributes
    ----------
    rows : tuple of Row
        One a question, in the table's order.
    kept : int
        Rows that an earlier run left, and that were not done again.
    anew : Counter
        Why others that an earlier run left were done again, and how many.
    """

    rows: tuple[Row, ...]
    kept: int = 0
    anew: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return sum(bool(row.error) for row in self.rows)


class Looks(Protocol):
    """What `m3node.attention.reading.looker.Looker` does."""

    def features(self, image: InputImage) -> torch.Tensor:
        """Encode an image once, for all questions about it."""
        ...

    def ask(self, features: torch.Tensor, image: InputImage, texts: Sequence[str]) -> list[Looked]:
        """Ask questions about one image."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What is needed to answer questions: who looks, at which images, and where results go."""

    looker: Looks
    images: ImageFolder
    livers: LiverOutlines
    shelf: Shelf


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Questions about one image, as far as they can be prepared while the model works on others.

    Attributes
    ----------
    asked : tuple of Asked
        Those that are to be asked, without their truth.
    kept : tuple of Row
        Of those that need not be asked again.
    anew : tuple of str
        Why something is done again.
    shown : Shown or None
        The image; None when none is needed, or it cannot be read.
    error : str
        Why it cannot.
    """

    asked: tuple[Asked, ...]
    kept: tuple[Row, ...] = ()
    anew: tuple[str, ...] = ()
    shown: Shown | None = None
    error: str = ""


def run_questions(desk: Desk, questions: Sequence[Question], progress: Progress, *, resume: bool) -> Run:
    """Ask every question, and write the table of what came of them, also when it is interrupted.

    Parameters
    ----------
    desk : Desk
        Its folder of results was opened by `m3node.attention.output.folder.open_folder`.
    questions : sequence of Question
        No two with one key.
    progress : Progress
        Told after each question.
    resume : bool
        Keep what an earlier run left, where it is whole and was made on the same basis.

    Raises
    ------
    ConfigError
        Two questions would write the same files.
    OSError
        Results cannot be written.
    """
    if twice := [key for key, count in Counter(question.key for question in questions).items() if count > 1]:
        raise ConfigError(f"two questions have the key {twice[0]}: the table asks the same thing twice")
    for name in (TABLE, REPORT):  # of an earlier run: neither may outlive what it tells of
        (desk.shelf.out / name).unlink(missing_ok=True)
    rows: dict[str, Row] = {}
    kept, anew = 0, Counter[str]()
    try:
        progress("asking", 0, len(questions))
        for batch in _read_ahead(_by_image(questions), lambda group: _prepare(desk, group, resume=resume)):
            kept += len(batch.kept)
            anew.update(batch.anew)
            rows |= {row.key: row for row in batch.kept}
            progress("asking", len(rows), len(questions))
            for row in _answer(desk, batch):
                rows[row.key] = row
                progress("asking", len(rows), len(questions))
    finally:
        in_order = tuple(rows[question.key] for question in questions if question.key in rows)
        write_over(desk.shelf.out / TABLE, table(in_order))
    return Run(in_order, kept, anew)


def ask_one(desk: Desk, question: Question, path: Path) -> Row:
    """Ask one question about the image in a file, and leave its files; there is no table."""
    asked = Asked(question, _basis(desk, question, digest_of(path)))
    (row,) = _answer(desk, _read(desk, path, _Batch(asked=(asked,))))
    return row


def _by_image(questions: Sequence[Question]) -> Iterator[tuple[Question, ...]]:
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.dicom_id, []).append(question)
    return (tuple(group) for group in groups.values())


def _read_ahead(
    groups: Iterator[tuple[Question, ...]], prepare: Callable[[tuple[Question, ...]], _Batch]
) -> Iterator[_Batch]:
    """Prepare each group while the one before is worked on: three images are held at most."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as pool:
        coming = None
        for group in groups:
            ready, coming = coming, pool.submit(prepare, group)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def _prepare(desk: Desk, group: tuple[Question, ...], *, resume: bool) -> _Batch:
    """Find and read the image, unless nothing is to be asked about it."""
    path, error = None, ""
    try:
        path = desk.images.find(group[0].dicom_id)
    except ImageError as problem:
        error = str(problem)
    # What cannot be found cannot be compared: a result whose image went away stays what it is.
    image = digest_of(path) if path is not None else None
    kept: list[Row] = []
    asked: list[Asked] = []
    anew: list[str] = []
    for question in group:
        basis = _basis(desk, question, image)
        held = read_record(desk.shelf.out, question.key, basis) if resume else Held()
        if held.row is not None:
            file = held.row.image_file if path is None else _below(desk, path)
            kept.append(replace(held.row, line=question.line, image_file=file))
            continue
        asked.append(Asked(question, basis))
        anew += [held.why_not] if held.why_not else []
    return _read(desk, path, _Batch(tuple(asked), tuple(kept), tuple(anew), error=error))


def _read(desk: Desk, path: Path | None, batch: _Batch) -> _Batch:
    """Read the image, unless nothing is to be asked about it."""
    if path is None or not any(one.question.text for one in batch.asked):
        return batch
    try:
        shown = Shown(_with_body(desk, read_image(path)), _below(desk, path))
    except M3NodeError as problem:
        return replace(batch, error=str(problem))
    return replace(batch, shown=shown)


def _below(desk: Desk, path: Path) -> str:
    return path.relative_to(desk.images.root).as_posix()


def _basis(desk: Desk, question: Question, image: str | None) -> dict[str, Any]:
    asked = {name: value for name, value in asdict(question).items() if name != "line"}
    return desk.shelf.setup.basis | {"question": asked, "image": image, "mask": _mask_digest(desk, question)}


def _mask_digest(desk: Desk, question: Question) -> str:
    try:
        return digest_of(desk.images.find(question.truth_mask)) if question.truth_mask else ""
    except ImageError:
        return ""


def _with_body(desk: Desk, image: InputImage) -> InputImage:
    return replace(image, body=find_body(image, BodyKind(desk.shelf.setup.body), livers=desk.livers))


def _answer(desk: Desk, batch: _Batch) -> Iterator[Row]:
    """Ask what is to be asked about one image; what came of each question is on disk before the next."""
    ready: list[Asked] = []
    for asked in batch.asked:
        error = batch.error if asked.question.text else NO_QUESTION
        if batch.shown is not None and not error:
            try:
                ready.append(replace(asked, truth=_truth(desk, asked.question, batch.shown.image)))
            except ImageError as problem:
                error = str(problem)
        if error:
            yield keep_failure(desk.shelf, asked, batch.shown, error)
    if batch.shown is None:
        return
    answers = _look(desk.looker, batch.shown.image, [asked.question.text for asked in ready])
    for asked, looked in zip(ready, answers, strict=True):
        if isinstance(looked, M3NodeError):
            yield keep_failure(desk.shelf, asked, batch.shown, str(looked))
        else:
            yield keep_result(desk.shelf, asked, batch.shown, looked)


def _look(looker: Looks, image: InputImage, texts: Sequence[str]) -> list[Looked | M3NodeError]:
    """Ask all at once; where that fails, one after the other, so that only those fail that must."""
    if not texts:
        return []
    try:
        features = looker.features(image)
    except M3NodeError as error:
        return [error for _ in texts]
    try:
        return list(looker.ask(features, image, texts))
    except M3NodeError as error:
        if len(texts) == 1:
            return [error]
    return [one for text in texts for one in _look(looker, image, [text])]


def _truth(desk: Desk, question: Question, image: InputImage) -> npt.NDArray[np.bool_] | None:
    """What the question is about: the mask where there is one, else the box."""
    if question.truth_mask:
        return read_mask(desk.images.find(question.truth_mask), image)
    if question.truth_box is None:
        return None
    mask = box_mask(question.truth_box, image.shape)
    if not mask.any():
        rows, columns = image.shape
        raise ImageError(f"the truth box lies beside the image, which has {rows} rows and {columns} columns")
    return mask
