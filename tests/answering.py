"""Runs answered in the process of a test, as a worker answers them, without an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from m3node.delivery.entry import Entry
from m3node.errors import DatabaseError
from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.series.manifest import Manifest, make_manifest, write_manifest
from m3node.intake.series.reading import read_header
from m3node.intake.series.stacks import group_stacks
from m3node.jobs.answer.record import RunRecord, read_record
from m3node.jobs.answer.steps import make_detector
from m3node.jobs.engine.bench import Bench
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.jobs.engine.work import Words, work_on
from m3node.jobs.ledger.notes import NoLedger
from m3node.layout import DataLayout
from m3node.settings import Settings


class Handed(Dispatcher):
    """Keeps what a job hands over; without a database, as far as the job can see, when ``away``."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.entries: list[Entry] = []
        self.away = False

    def enqueue_delivery(self, entry: Entry, *, delay: float = 0.0) -> bool:
        if self.away:
            raise DatabaseError("the database cannot be used")
        self.entries.append(entry)
        return True


def made_layout(root: Path) -> DataLayout:
    """A data folder with all its folders."""
    layout = DataLayout(root)
    layout.create()
    return layout


def made_bench(settings: Settings) -> Bench:
    """What the jobs of one worker process share."""
    return Bench(
        layout=made_layout(settings.data_dir),
        settings=settings,
        detector=make_detector(settings),
        ledger=NoLedger(),
        dispatcher=Handed(settings),
        name="slot-0",
    )


def made_generation(
    layout: DataLayout, slices: int, number: int = 1, before: Manifest | None = None, *, rename: str = ""
) -> Manifest:
    """A manifest of the first slices of one series without a liver."""
    folder = layout.spool / "series"
    shape = (12, 64, 64)
    hu = np.full(shape, -1000, dtype=np.int16)
    if not folder.exists():
        write_ct_series(folder, hu, axial_geometry(shape, (2.0, 1.0, 1.0)), seed="answering")
    files = sorted(folder.iterdir())[:slices]
    (stack,) = group_stacks([read_header(path, layout.spool) for path in files])
    if rename:
        stack = replace(stack, key=replace(stack.key, stack=rename))
    manifest = make_manifest(
        stack, root=layout.spool, generation=number, supersedes=before.key if before else "", created_at=0.0
    )
    write_manifest(manifest, layout.manifests)
    return manifest


def run_of(manifest: Manifest) -> str:
    """Name of the manifest's run."""
    return Path(manifest.file_name).stem


def worked(bench: Bench, run: str) -> Words:
    """Do a run's steps in the order in which the workflow does, and return the words of the last one."""
    with bench.job(run):
        for step in ("assemble", "detect", "build"):
            words = work_on(bench, step, run)
            if words:
                break
        if not words or "end" in words:
            words = work_on(bench, "close", run, words.get("end", {}))
        return words


def answered(bench: Bench, manifest: Manifest) -> RunRecord:
    """Answer a manifest to its end."""
    worked(bench, run_of(manifest))
    record = read_record(bench.layout.results / run_of(manifest))
    assert record is not None
    return record
