"""A ledger with very many studies, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from m3node.jobs.ledger.database import writing
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.states import SeriesState
from m3node.jobs.ledger.writes import put_records, put_series
from made_runs import run_manifest, run_record


def crowd(ledger: Ledger, studies: int) -> None:
    """Note studies ``1.0``, ``1.1`` … of two series each, one after the other, all of them done."""
    series = [
        {
            "series_instance_uid": f"1.{number}.{part}",
            "study_instance_uid": f"1.{number}",
            "state": SeriesState.ANSWERED,
            "instances": 300,
            "first_received_at": float(number),
            "last_received_at": number + 0.5,
            "purged_at": None,
        }
        for number in range(studies)
        for part in (1, 2)
    ]
    pairs = [(str(row["series_instance_uid"]), str(row["study_instance_uid"])) for row in series]
    made = [run_manifest(part, study=study) for part, study in pairs]
    with writing(ledger.engine) as connection:
        put_series(connection, series)
        put_records(connection, [(run_record(of), of.file_name.removesuffix(".json"), 103.5) for of in made])


@contextmanager
def asked(engine: Engine) -> Iterator[list[str]]:
    """The questions that are put to the database."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            said.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", note)
