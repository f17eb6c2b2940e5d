"""Lists of studies, runs and dead letters page by page, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowded import asked, crowd
from ledgers import DATABASES, opened_ledger, put_received
from m3node.delivery.state import DeliveryState
from m3node.jobs.ledger import lists
from m3node.jobs.ledger.notes import Ledger
from m3node.jobs.ledger.paging import Cursor, Page
from m3node.jobs.ledger.states import RunState, SeriesState
from m3node.jobs.ledger.study_list import StudyFilter, StudyRow, studies
from m3node.rejection import Reason, Rejection
from m3node.results.findings import Outcome
from m3node.settings import Settings
from made_headers import HEADER
from made_runs import run_entry, run_manifest, run_object, run_record

STUDIES = 10_000


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with opened_ledger(Settings(data_dir=tmp_path / "data", database_url=url)) as ledger:
        yield ledger


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Ten thousand studies of two series each, all of them done."""
    with opened_ledger(Settings(data_dir=tmp_path_factory.mktemp("crowded"))) as ledger:
        crowd(ledger, STUDIES)
        yield ledger


def uids(page: Page[StudyRow]) -> list[str]:
    return [row.study_instance_uid for row in page.rows]


def test_pages_go_from_the_newest_study_to_the_oldest_and_back_and_leave_none_out(ledger: Ledger) -> None:
    for number in range(7):
        # Some of them came at the same time.
        put_received(ledger, f"1.{number}.1", f"1.{number}", last=float(number // 3))
    down = []
    page = studies(ledger.engine, limit=3)
    assert page.newer is None
    while page.rows:
        down.append(uids(page))
        if page.older is None:
            break
        page = studies(ledger.engine, after=Cursor.parse(str(page.older)), limit=3)
    assert down == [["1.6", "1.5", "1.4"], ["1.3", "1.2", "1.1"], ["1.0"]]
    up = []
    while page.newer is not None:
        page = studies(ledger.engine, before=page.newer, limit=3)
        up.append(uids(page))
    assert up == [["1.3", "1.2", "1.1"], ["1.6", "1.5", "1.4"]]


def test_a_page_stays_what_it_was_when_another_study_comes_in(ledger: Ledger) -> None:
    for number in range(4):
        put_received(ledger, f"1.{number}.1", f"1.{number}", last=float(number))
    first = studies(ledger.engine, limit=2)
    put_received(ledger, "1.9.1", "1.9", last=9.0)
    assert uids(studies(ledger.engine, after=first.older, limit=2)) == ["1.1", "1.0"]


def some_of_each(ledger: Ledger) -> None:
    """A study in every state that is asked for, named after it."""
    for name, study in (("waits", "1.1"), ("found", "1.2"), ("refused", "1.3"), ("failed", "1.4"), ("comes", "1.5")):
        state = SeriesState.RECEIVING if name == "comes" else SeriesState.ANSWERED
        put_received(ledger, f"{study}.1", study, state=state, headers=[HEADER] if name == "found" else [])
    ledger.note_manifest(run_manifest("1.1.1", study="1.1"))
    found = run_manifest("1.2.1", study="1.2")
    ledger.note_record(run_record(found, objects=(run_object("1.2.1.g1"),)), run="1.2.1.g1", finished_at=9.0)
    for number, (series, study, reason) in enumerate(
        (("1.3.1", "1.3", Reason.TILTED), ("1.4.1", "1.4", Reason.FAILED))
    ):
        of = run_manifest(series, study=study, key=f"k{number}")
        record = run_record(of, outcome=Outcome.REJECTED, lesions=0, rejection=Rejection(reason, "why", series))
        ledger.note_record(record, run=f"{series}.g1", finished_at=9.0)
    ledger.note_entry(run_entry("1.2.1.g1", "a", study_instance_uid="1.2"))
    ledger.note_entry(run_entry("1.3.1.g1", "a", study_instance_uid="1.3", state=DeliveryState.DEAD, last_error="no"))


@pytest.mark.parametrize(
    ("wanted", "study"),
    [
        (StudyFilter.WORKING, "1.1"),
        (StudyFilter.LESIONS, "1.2"),
        (StudyFilter.REJECTED, "1.3"),
        (StudyFilter.FAILED, "1.4"),
        (StudyFilter.RECEIVING, "1.5"),
        (StudyFilter.UNDELIVERED, "1.2"),
        (StudyFilter.DEAD, "1.3"),
    ],
)
def test_studies_are_found_by_what_is_the_matter_with_them(ledger: Ledger, wanted: StudyFilter, study: str) -> None:
    some_of_each(ledger)
    assert uids(studies(ledger.engine, wanted)) == [study]


def test_every_filter_is_tried() -> None:
    (mark,) = test_studies_are_found_by_what_is_the_matter_with_them.pytestmark  # type: ignore[attr-defined]
    assert {wanted for wanted, _ in mark.args[1]} == set(StudyFilter)


def test_an_older_generation_does_not_count_any_more(ledger: Ledger) -> None:
    put_received(ledger, "1.2.1", "1.2")
    first = run_manifest("1.2.1", study="1.2", key="a")
    ledger.note_record(run_record(first), run="1.2.1.g1", finished_at=9.0)
    second = run_manifest("1.2.1", study="1.2", key="b", generation=2)
    record = run_record(second, outcome=Outcome.NO_LESION, lesions=0)
    ledger.note_record(record, run="1.2.1.g2", finished_at=10.0)
    (row,) = studies(ledger.engine).rows
    assert (row.runs, row.outcomes, row.lesions) == ({"done": 1}, {"no-lesion": 1}, 0)
    assert studies(ledger.engine, StudyFilter.LESIONS).rows == ()


def test_a_study_is_found_by_the_uid_of_anything_in_it(ledger: Ledger) -> None:
    for study in ("1.1", "1.2", "1.31"):
        put_received(ledger, f"7.{study}", study, last=1.0)
    received = replace(HEADER, series_instance_uid="7.1.2", sop_instance_uid="8.1")
    put_received(ledger, "7.1.2", "1.2", headers=[received])
    made = replace(run_object("7.1.2.g1"), sop_instance_uid="8.2", study_instance_uid="1.2")
    of = run_manifest("7.1.2", study="1.2")
    ledger.note_record(run_record(of, objects=(made,)), run="7.1.2.g1", finished_at=9.0)
    for uid in ("1.2", "7.1.2", "8.1", "8.2"):
        assert uids(studies(ledger.engine, uid=uid)) == ["1.2"], uid
    assert uids(studies(ledger.engine, uid="1.3")) == ["1.31"]
    assert len(uids(studies(ledger.engine, uid="1."))) == 3
    for nothing in ("%", "1_2", "'; DROP TABLE study", "x", "1..2", "\0", "8"):
        assert uids(studies(ledger.engine, uid=nothing)) == []


def test_runs_go_from_the_newest_to_the_oldest(ledger: Ledger) -> None:
    for number in range(5):
        ledger.note_manifest(run_manifest(f"1.{number}", key=str(number), created_at=float(number)))
    first = lists.runs(ledger.engine, limit=2)
    assert [run.run for run in first.rows] == ["1.4.g1", "1.3.g1"]
    second = lists.runs(ledger.engine, [RunState.QUEUED], after=first.older, limit=2)
    assert [run.run for run in second.rows] == ["1.2.g1", "1.1.g1"]
    assert [run.run for run in lists.runs(ledger.engine, before=second.newer, limit=2).rows] == ["1.4.g1", "1.3.g1"]
    assert lists.runs(ledger.engine, [RunState.FAILED]).rows == ()


def test_dead_letters_are_grouped_by_what_they_ended_with(ledger: Ledger) -> None:
    for number in range(5):
        error = "refused" if number < 3 else "given up"
        entry = run_entry(f"1.{number}.g1", "a", state=DeliveryState.DEAD, last_error=error, finished_at=10.0 + number)
        ledger.note_entry(entry)
    ledger.note_entry(run_entry("1.9.g1", "a"))
    groups = lists.dead_groups(ledger.engine)
    assert [(group.last_error, group.count, group.oldest_at) for group in groups] == [
        ("refused", 3, 10.0),
        ("given up", 2, 13.0),
    ]
    alike = lists.dead_letters(ledger.engine, "a", "given up")
    assert [letter.run for letter in alike] == ["1.3.g1", "1.4.g1"]
    assert len(lists.dead_letters(ledger.engine, limit=4)) == 4
    assert lists.dead_letters(ledger.engine, "b") == ()
    found = lists.delivery(ledger.engine, "a", alike[0].name)
    assert found == alike[0]
    assert lists.delivery(ledger.engine, "a", "another") is None


def test_a_page_of_ten_thousand_studies_asks_as_little_as_one_of_ten(crowded: Ledger) -> None:
    with asked(crowded.engine) as questions:
        first = studies(crowded.engine)
        later = studies(crowded.engine, after=Cursor(STUDIES / 2, "1.0"))
    assert len(questions) == 8
    assert len(first.rows) == len(later.rows) == 50
    assert uids(later)[0] == f"1.{STUDIES // 2 - 1}"
    assert first.rows[0].runs == {"done": 2}
    assert (first.rows[0].instances, first.rows[0].lesions) == (600, 4)


@pytest.mark.parametrize("wanted", [None, *StudyFilter])
def test_a_page_of_ten_thousand_studies_is_found_by_an_index(crowded: Ledger, wanted: StudyFilter | None) -> None:
    with asked(crowded.engine) as questions:
        studies(crowded.engine, wanted, after=Cursor(STUDIES / 2, "1.0"))
    with crowded.engine.connect() as connection:
        for question in questions:
            values = (1.0,) * question.count("?")
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {question}", values).all()
            scans = [row[3] for row in plan if row[3].startswith("SCAN") and "USING" not in row[3]]
            assert scans == [], question
            assert not any("USE TEMP B-TREE FOR ORDER BY" in row[3] for row in plan), question
            # Of a study its own parts are looked at, and not all that are in a state.
            assert not any("(state=?)" in row[3] for row in plan), question


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False), st.from_regex(r"[0-9.]{1,64}", fullmatch=True))
def test_a_cursor_survives_its_way_through_an_address(at: float, key: str) -> None:
    cursor = Cursor(at, key)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "~", "1", "1~", "x~1.2", "1~<script>", "1~1.2~3", "e~1.2", "1.0~" + "1" * 200])
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None
