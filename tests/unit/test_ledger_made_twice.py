"""What a run's row says in the end is the same, noted step by step or made from its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ledgers import DATABASES, opened_ledger, row_of
from m3node.intake.series.manifest import write_manifest
from m3node.jobs.answer.record import write_record
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.sync import sync
from m3node.jobs.ledger.tables import Run
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings
from made_runs import run_manifest, run_record

RUN = "1.2.g1"
MANIFEST = run_manifest(key="k1", priority="stat")
DONE = run_record(MANIFEST, worker="slot-0")
NOTHING = replace(DONE, outcome=None, lesions=0)
FAILED = Rejection(Reason.FAILED, "the detector failed", RUN)
ENDS = {
    "done": DONE,
    "failed": replace(NOTHING, outcome=Outcome.REJECTED, rejection=FAILED),
    "superseded before it began": replace(NOTHING, superseded_by="k2", started_at=0.0),
    "cancelled while it ran": replace(NOTHING, cancelled="by mistake"),
}


@pytest.fixture(params=DATABASES)
def ledgers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ledger, Ledger]]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with ExitStack() as stack:
        noted = stack.enter_context(opened_ledger(Settings(data_dir=tmp_path / "noted", database_url=url)))
        yield noted, stack.enter_context(opened_ledger(Settings(data_dir=tmp_path / "made")))


@pytest.mark.parametrize("end", ENDS)
def test_an_ended_run_is_told_alike_by_its_notes_and_by_its_files(
    ledgers: tuple[Ledger, Ledger], tmp_path: Path, end: str
) -> None:
    noted, made = ledgers
    record = ENDS[end]
    noted.note_manifest(MANIFEST)
    noted.note_started(RUN, "slot-0")
    noted.note_stage(RUN, "looking", 1, 3)
    noted.note_record(record, run=RUN, finished_at=record.finished_at)

    layout = DataLayout(tmp_path / "data")
    layout.create()
    write_manifest(MANIFEST, layout.manifests)
    (layout.results / RUN).mkdir()
    write_record(record, layout.results / RUN)
    sync(layout, made)
    assert row_of(noted, Run) == row_of(made, Run)
