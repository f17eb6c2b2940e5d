"""``robustness/{key}.json``: what came of one baseline question under every change, and how to do it again."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from m3node.attention.robustness.similarity import Similarity
from m3node.durable import write_over
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

SCHEMA = "m3node.attention-robustness/1"
"""Another one when records change their meaning: older ones are then made anew."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and what its grid is made of.

    Attributes
    ----------
    answer, normalised : str
        As it was given, and in the form in which answers are compared.
    correct : bool or None
        None where the truth is not known.
    log_prob, image_share : float or None
        As `Looked` has them; None where that is no number.
    mode : str
        What the grid is made of.
    passed_over : tuple of str
        Modes before it, and why their grids could not be used.
    degenerate : bool
        No mode gave a grid that says anything.
    """

    answer: str
    normalised: str
    correct: bool | None
    log_prob: float | None
    image_share: float | None
    mode: str
    passed_over: tuple[str, ...]
    degenerate: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One change, and what came of it.

    Attributes
    ----------
    group : str
        ``paraphrase``: the question was asked in other words; ``perturbation``: the image was changed.
    name : str
        Strategy of the paraphrase, or kind and strength of the perturbation.
    arrays : str
        What the names of its arrays in ``{key}_grids.npz`` begin with.
    question, truth : str
        What was asked, and the right answer.
    variant_index : int
        Of the question that was asked.
    strength : float or None
    seed : int or None
        Of a perturbation: with ``name``, all that it takes to make the same bytes again.
    to_original : tuple of tuple of float or None
        Of a perturbation: 2 × 3, edge coordinates of the image before, from those of the changed one.
    shape : tuple of int or None
        Of a perturbation: rows and columns of the changed image.
    area : tuple of float or None
        What the grid covers, in edge coordinates of the image that it was made of, ``(r0, c0, r1, c1)``.
    said : Said or None
        None when it failed.
    flipped : bool or None
        The answers differ where the truths are the same, or are the same where the truths differ. A truth that is not
        known is taken to be the same.
    comparable : bool
        Both grids are of one mode and neither is degenerate: their similarity says something.
    similarity : Similarity or None
        Of the grid, after the geometry is undone, with that of the original question about the original image.
    error : str
        Why there is nothing; empty where there is.
    """

    group: Literal["paraphrase", "perturbation"]
    name: str
    arrays: str
    question: str
    truth: str
    variant_index: int
    strength: float | None = None
    seed: int | None = None
    to_original: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    shape: tuple[int, int] | None = None
    area: tuple[float, float, float, float] | None = None
    said: Said | None = None
    flipped: bool | None = None
    comparable: bool = False
    similarity: Similarity | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RobustnessRecord:
    """One baseline question about one image.

    Attributes
    ----------
    key : str
        `Question.key` of the baseline question.
    study_id, dicom_id, question, truth : str
        As the table has them.
    shape : tuple of int or None
        Rows and columns of the image.
    area : tuple of float or None
        What its grids cover, as `Change.area`.
    said : Said or None
        The answer to it about the image as it is; None when it failed.
    changes : tuple of Change
        Paraphrases first, then perturbations, each in the order in which they were asked for.
    error : str
        Why there is nothing at all; empty where there is something.
    """

    key: str
    study_id: str
    dicom_id: str
    question: str
    truth: str
    shape: tuple[int, int] | None = None
    area: tuple[float, float, float, float] | None = None
    said: Said | None = None
    changes: tuple[Change, ...] = ()
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether something of it failed."""
        return bool(self.error) or any(change.error for change in self.changes)


_ADAPTER = TypeAdapter(RobustnessRecord)


def record_name(key: str) -> str:
    """Name of the record's file."""
    return f"{key}.json"


def grids_name(key: str) -> str:
    """Name of the file of grids."""
    return f"{key}_grids.npz"


def sheet_name(key: str) -> str:
    """Name of the picture."""
    return f"{key}.png"


def write_record(
    folder: Path,
    record: RobustnessRecord,
    basis: Mapping[str, Any],
    grids: Mapping[str, npt.NDArray[Any]],
    sheet: bytes | None,
) -> None:
    """Write a question's files, each whole or not at all, the record last.

    Parameters
    ----------
    folder : Path
        The folder ``robustness``, which exists.
    basis : mapping
        What the result depends on, as JSON holds it.
    grids : mapping
        Arrays by name; no file is written without any.
    sheet : bytes or None
        The picture.
    """
    path = folder / record_name(record.key)
    # Without its record, what lies there counts for nothing: so that no record ever stands for other files.
    path.unlink(missing_ok=True)
    contents = {grids_name(record.key): _packed(grids) if grids else None, sheet_name(record.key): sheet}
    for name, content in contents.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_over(folder / name, content)
    held = {
        "schema": SCHEMA,
        "notice": f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}",
        "basis": dict(basis),
        "files": {
            name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if content is not None
        },
        "record": _ADAPTER.dump_python(record, mode="json"),
    }
    write_over(path, json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False).encode())


def read_record(path: Path) -> tuple[RobustnessRecord, dict[str, Any], dict[str, str]] | None:
    """Read a record, what it depends on, and its files' digests; None when there is none that can be read."""
    try:
        held = json.loads(path.read_bytes())
        if held["schema"] != SCHEMA:
            return None
        return _ADAPTER.validate_python(held["record"]), dict(held["basis"]), dict(held["files"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, ValidationError):
        return None


def whole_record(folder: Path, key: str, basis: Mapping[str, Any]) -> RobustnessRecord | None:
    """Return what an earlier run left, when it is whole, on the same basis, and nothing of it failed."""
    found = read_record(folder / record_name(key))
    if found is None:
        return None
    record, before, files = found
    if record.failed or record.key != key or before != json.loads(json.dumps(dict(basis))):
        return None
    return record if all(_digest(folder / name) == digest for name, digest in files.items()) else None


def _packed(grids: Mapping[str, npt.NDArray[Any]]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **dict(grids))
    return stream.getvalue()


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
