"""A node for the tests of the ledger: does to the files what the roles do, and notes it as they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import text

from ledgers import opened_ledger, put_received, rows_of
from m3node.delivery.entry import Entry, to_json
from m3node.delivery.outbox import box_of
from m3node.delivery.state import DeliveryState
from m3node.intake.keeper.index import Index, Settled, header_line, settled_line
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, SliceRef, StackKey, write_manifest
from m3node.jobs.answer.record import RunRecord, write_record
from m3node.jobs.answer.rejections import record_rejection
from m3node.jobs.ledger.files import read_rejection
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.states import SeriesState
from m3node.jobs.ledger.tables import Delivery, Instance, Object, Run, Series, Study
from m3node.layout import DataLayout
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings
from made_headers import HEADER
from made_runs import run_entry, run_manifest, run_object, run_record
from waiting import wait_for

TABLES = (Study, Series, Instance, Run, Object, Delivery)
TILTED = Rejection(Reason.TILTED, "tilted by 12 degrees", "1.4")


def header(series: str, number: int) -> InstanceHeader:
    return replace(
        HEADER,
        path=f"1.1/{series}/{number}.dcm",
        sop_instance_uid=f"{series}.{number}",
        series_instance_uid=series,
        received_at=10.0 * int(series.rpartition(".")[2]) + number,
    )


def manifest(series: str, generation: int = 1, *, supersedes: str = "", stack: str = "") -> Manifest:
    """What the scanner of JSON that files are read with could stumble over is in it."""
    return run_manifest(
        series,
        stack=stack,
        key=f"key of {series} {stack} {generation}",
        generation=generation,
        supersedes=supersedes,
        root='/spool ","instances":["',
        instances=(header(series, 0), header(series, 1)),
        slices=(SliceRef(0, 0), SliceRef(1, 0)),
        liver_segs=(header(series, 9),),
        senders=('A","senders":["', "PACS"),
        priority="stat",
        created_at=20.25,
    )


def record(of: Manifest, **changes: Any) -> RunRecord:
    item = run_object(of.file_name.removesuffix(".json"))
    return run_record(of, **{"objects": (item,), "started_at": 30.5, "finished_at": 40.5} | changes)


def entry(destination: str, run: str, **changes: Any) -> Entry:
    return run_entry(run, destination, **{"queued_at": 40.5} | changes)


class Node:
    """Does to the files what the roles do, and notes it as they do."""

    def __init__(self, layout: DataLayout, ledger: Ledger) -> None:
        self.layout = layout
        self.ledger = ledger

    def receive(self, series: str, *, settled: bool = True) -> None:
        headers = [header(series, 0), header(series, 1)]
        facts = [header_line(item) for item in headers]
        Index(self.layout.index).append(series, [*facts, *([settled_line(Settled(2, unfit=False))] if settled else [])])
        state = SeriesState.ANSWERED if settled else SeriesState.RECEIVING
        first, last = (item.received_at for item in headers)
        put_received(self.ledger, series, "1.1", state=state, first=first, last=last, headers=headers)

    def announce(self, made: Manifest) -> None:
        write_manifest(made, self.layout.manifests)
        self.ledger.note_manifest(made)

    def end(self, ended: RunRecord) -> Path:
        run = f"{ended.label}.g{ended.generation}"
        folder = self.layout.results / run
        folder.mkdir(exist_ok=True)
        self.ledger.note_started(run, "0")
        written = write_record(ended, folder)
        self.ledger.note_record(written, run=run, finished_at=written.finished_at)
        return folder

    def reject(self, key: StackKey, generation: int, rejection: Rejection) -> None:
        folder = record_rejection(self.layout, key, generation, "d" * 64, rejection)
        found, at = read_rejection(folder)
        self.ledger.note_rejected(key, folder.name, "1.1", found, at)

    def deliver(self, item: Entry, filed: str = "") -> Path:
        box = box_of(self.layout, item.destination)
        box.create()
        path = box.folder / filed / f"{item.name}.json"
        path.write_bytes(to_json(item))
        self.ledger.note_entry(item)
        return path


def work(node: Node) -> None:
    """A bit of everything."""
    for series in ("1.2", "1.3", "1.4", "1.5", "1.4.7"):
        node.receive(series)
    node.receive("1.6", settled=False)
    first, second = manifest("1.2"), manifest("1.2", 2, supersedes="key of 1.2  1")
    for made in (first, second, manifest("1.3"), manifest("1.5", stack="0badcafe")):
        node.announce(made)
    node.end(record(first))
    node.end(record(second, outcome=None, superseded_by="another", objects=()))
    failed = Rejection(Reason.FAILED, "the detector failed", "1.3.g1")
    node.end(record(manifest("1.3"), outcome=Outcome.REJECTED, rejection=failed, objects=()))
    node.reject(StackKey("1.4", ""), 1, TILTED)
    node.reject(StackKey("1.4", "12345678"), 2, TILTED)
    node.reject(StackKey("1.4.7", ""), 1, TILTED)
    node.reject(StackKey("1.2", ""), 0, Rejection(Reason.NOT_CT, "no CT image", "1.2"))
    node.deliver(entry("pacs", "1.2.g1", state=DeliveryState.SENT, finished_at=41.5, stored_at=41.5), "sent")
    node.deliver(entry("archive", "1.2.g1", state=DeliveryState.RETRYING, attempts=2, not_before=50.5))
    node.deliver(entry("dead", "1.2.g1", state=DeliveryState.DEAD, last_error="refused", finished_at=42.5), "aside")


def everything(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    return {kind.__tablename__: rows_of(ledger, kind) for kind in TABLES}


def let_the_disks_clock_go_on(node: Node, until: float = 0.0) -> None:
    """Have all that is done from now on be told later than all that was done before, and than a time."""
    clock = node.layout.locks / "clock"
    clock.touch()
    before = max(clock.stat().st_ctime, until)

    def is_later() -> bool:
        os.utime(clock)
        return clock.stat().st_ctime > before

    wait_for(is_later)


def empty(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        for kind in TABLES:
            connection.execute(text(f'DELETE FROM "{kind.__tablename__}"'))
        connection.execute(text("DELETE FROM mark"))


@contextmanager
def opened_node(folder: Path, database_url: str = "") -> Iterator[Node]:
    """A node on either database."""
    with opened_ledger(Settings(data_dir=folder, database_url=database_url)) as ledger:
        yield Node(DataLayout(folder), ledger)
