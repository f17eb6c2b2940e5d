"""``grids/{key}_meta.json``: the record of one question; what has one is whole, and not done again by ``--resume``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3node.attention.output.folder import QuestionFiles
from m3node.attention.output.rows import Row
from m3node.durable import write_over
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

SCHEMA = "m3node.attention/1"

Basis = Mapping[str, Any]
"""What a result depends on, by part: model, plan, terms, question and so on; as JSON holds it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an earlier run left of a question.

    Attributes
    ----------
    row : Row or None
        Its row, when the record is whole, made on the same basis, and no error.
    why_not : str
        Why it is to be done anew, where there was something; empty otherwise.
    """

    row: Row | None = None
    why_not: str = ""


def write_record(out: Path, row: Row, basis: Basis, looked: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    """Write a question's files, the record last.

    Parameters
    ----------
    out : Path
        The folder of results; its folders exist.
    row : Row
        What came of it.
    basis : mapping
        What it depends on.
    looked : mapping
        What the row has no column for, as JSON holds it.
    contents : mapping
        The other files' bytes by their names below ``out``. What the question has beside them of an earlier run, such
        as an error's, is removed.
    """
    files = QuestionFiles(row.key)
    # Without its record, what lies there counts for nothing: so that no record ever stands for other files.
    (out / files.record).unlink(missing_ok=True)
    for name in files.all:
        if name not in contents:
            (out / name).unlink(missing_ok=True)
    for name, content in contents.items():
        write_over(out / name, content)
    record = {
        "schema": SCHEMA,
        "notice": f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}",
        "basis": dict(basis),
        "row": row.as_json(),
        "looked": dict(looked),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    write_over(out / files.record, json.dumps(record, indent=1, allow_nan=False).encode())


def read_record(out: Path, key: str, basis: Basis) -> Held:
    """Read what an earlier run left of a question.

    Parameters
    ----------
    basis : mapping
        What the question's result depends on now. A part that is None could not be told, and is not compared.
    """
    try:
        record = json.loads((out / QuestionFiles(key).record).read_bytes())
        if record["schema"] != SCHEMA:
            raise ValueError
        row, before, files = Row.from_json(record["row"]), dict(record["basis"]), dict(record["files"])
    except FileNotFoundError:
        return Held()
    except (ValueError, TypeError, KeyError, RecursionError):
        return Held(why_not="its record cannot be read")
    now = json.loads(json.dumps(dict(basis)))
    changed = [part for part in sorted({*now, *before}) if _differs(now, before, part)]
    lost = [name for name, digest in files.items() if digest_of(out / name) != digest]
    if row.error or row.key != key:
        why_not = "it had failed"
    elif changed:
        why_not = f"other {' and '.join(changed)}"
    else:
        why_not = "a file is missing or changed" if lost else ""
    return Held(why_not=why_not) if why_not else Held(row=row)


def finite(value: float) -> float | None:
    """A number as JSON can hold it; None for what is none, which a model whose own numbers overflow gives."""
    return float(value) if math.isfinite(value) else None


def digest_of(path: Path) -> str:
    """SHA-256 of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _differs(now: Basis, before: Basis, part: str) -> bool:
    if part in now and now[part] is None:
        return False
    return part not in now or part not in before or now[part] != before[part]
