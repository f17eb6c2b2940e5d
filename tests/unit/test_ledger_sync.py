"""The ledger made from the files is the ledger that the notes made, at any time and as often as one likes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ledger_node import (
    Node,
    empty,
    entry,
    everything,
    header,
    let_the_disks_clock_go_on,
    manifest,
    opened_node,
    record,
    work,
)
from ledgers import DATABASES, rows_of
from m3node.errors import DatabaseError
from m3node.intake.keeper.index import Index, header_line
from m3node.jobs.ledger.database import open_engine, writing
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.sync import SyncReport, catch_up, sync
from m3node.jobs.ledger.tables import Delivery, Mark, Run, Series
from m3node.jobs.ledger.upsert import upsert
from m3node.settings import Settings


@pytest.fixture(params=DATABASES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with opened_node(tmp_path / "data", url) as node:
        yield node


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Node]:
    """On SQLite, where the database does not matter."""
    with opened_node(tmp_path / "data") as node:
        yield node


def test_a_ledger_that_was_lost_is_made_again_as_it_was(node: Node) -> None:
    work(node)
    noted = everything(node.ledger)
    assert {len(rows) for rows in noted.values()} == {1, 6, 12, 8, 3}
    empty(node.ledger)
    report = sync(node.layout, node.ledger)
    assert everything(node.ledger) == noted
    assert report == SyncReport(series=6, manifests=4, runs=7, deliveries=3)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_it_does_not_matter_in_how_many_batches_it_is_made(
    lite: Node, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.BATCH", batch)
    work(lite)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    sync(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted
    for series in ("1.7", "1.8", "1.9"):
        lite.announce(manifest(series))
        lite.deliver(entry("pacs", f"{series}.g1"))
    shutil.rmtree(lite.layout.outbox)
    for path in lite.layout.manifests.iterdir():
        path.unlink()
    sync(lite.layout, lite.ledger)
    assert {row["state"] for row in rows_of(lite.ledger, Delivery)} == {"sent", "dead"}
    assert "queued" not in {row["state"] for row in rows_of(lite.ledger, Run)}


@pytest.mark.parametrize("follow", [sync, catch_up])
def test_following_the_files_of_a_ledger_that_is_right_changes_nothing(node: Node, follow: Any) -> None:
    work(node)
    noted = everything(node.ledger)
    for _ in range(2):
        follow(node.layout, node.ledger)
        assert everything(node.ledger) == noted


def test_what_changed_since_the_last_pass_is_all_that_is_read(lite: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    work(lite)
    let_the_disks_clock_go_on(lite)
    assert catch_up(lite.layout, lite.ledger).series == 6
    assert catch_up(lite.layout, lite.ledger) == SyncReport()
    lite.receive("1.7")
    lite.announce(manifest("1.7"))
    lite.end(record(manifest("1.7")))
    lite.deliver(entry("pacs", "1.7.g1"))
    let_the_disks_clock_go_on(lite)
    assert catch_up(lite.layout, lite.ledger) == SyncReport(series=1, manifests=1, runs=1, deliveries=1)
    assert catch_up(lite.layout, lite.ledger) == SyncReport()


def test_what_changes_while_a_pass_reads_is_read_by_the_next_one(lite: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    work(lite)
    let_the_disks_clock_go_on(lite)

    def meanwhile(stage: str, *_: int) -> None:
        if stage == "outbox":
            Index(lite.layout.index).append("1.7", [header_line(header("1.7", 0))])
            let_the_disks_clock_go_on(lite)

    sync(lite.layout, lite.ledger, progress=meanwhile)
    let_the_disks_clock_go_on(lite)
    assert catch_up(lite.layout, lite.ledger) == SyncReport(series=1)
    assert "1.7" in {row["series_instance_uid"] for row in rows_of(lite.ledger, Series)}


def test_a_change_that_is_told_a_tick_before_the_last_pass_is_read(lite: Node) -> None:
    lite.receive("1.7")
    told = (lite.layout.index / "1.7.jsonl").stat().st_ctime + 0.01
    let_the_disks_clock_go_on(lite, told)
    with writing(lite.ledger.engine) as connection:
        upsert(connection, Mark, [{"name": "files", "at": told}])
    assert catch_up(lite.layout, lite.ledger) == SyncReport(series=1)


def test_what_a_pass_did_not_come_to_is_read_by_the_next_one(lite: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3node.jobs.ledger.sync.SLACK_SECONDS", 0.0)
    work(lite)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    let_the_disks_clock_go_on(lite)

    def refuse(*_: object) -> None:
        raise DatabaseError("the database cannot be used")

    with monkeypatch.context() as broken:
        broken.setattr("m3node.jobs.ledger.sync.put_records", refuse)
        with pytest.raises(DatabaseError):
            catch_up(lite.layout, lite.ledger)
    catch_up(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted


def test_nothing_is_missed_when_the_clock_was_set_back(lite: Node) -> None:
    catch_up(lite.layout, lite.ledger)
    with writing(lite.ledger.engine) as connection:
        connection.execute(update(Mark).values(at=Mark.at + 3600.0))
    lite.receive("1.7")
    assert catch_up(lite.layout, lite.ledger).series == 1


def test_a_database_that_is_away_ends_the_pass_and_the_next_one_follows_all(lite: Node) -> None:
    work(lite)
    away = Ledger(open_engine(Settings(database_url="postgresql://127.0.0.1:1/away")))
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/away cannot be used"):
        catch_up(lite.layout, away)
    noted = everything(lite.ledger)
    empty(lite.ledger)
    catch_up(lite.layout, lite.ledger)
    assert everything(lite.ledger) == noted


def test_progress_is_told_to_the_end(lite: Node) -> None:
    work(lite)
    told: list[tuple[str, int, int]] = []
    sync(lite.layout, lite.ledger, progress=lambda *step: told.append(step))
    assert ("index", 6, 6) in told
    assert {stage for stage, done, total in told if done == total} == {stage for stage, _, _ in told}


def test_two_passes_at_once_do_not_hinder_each_other(node: Node) -> None:
    work(node)
    noted = everything(node.ledger)
    empty(node.ledger)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda follow: follow(node.layout, node.ledger), (sync, catch_up)):
            pass
    assert everything(node.ledger) == noted
