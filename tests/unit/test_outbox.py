"""What waits for a destination is files: filed with its reason, changed by who saw it last, readable by a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fake_pacs import make_run
from m3node.delivery.entry import from_json
from m3node.delivery.outbox import (
    box_of,
    file_sent,
    finish,
    put_off,
    rewrite,
    set_aside,
    waiting,
)
from m3node.delivery.queueing import enqueue
from m3node.delivery.state import DeliveryState
from m3node.layout import DataLayout
from queued import RUN, destination, kinds_waiting, one_waiting


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def test_a_sent_entry_lies_in_sent_and_waits_no_more(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    file_sent(box, entry)
    assert waiting(box) == ()
    filed = from_json((box.sent / f"{RUN}.report.sr.json").read_bytes())
    assert filed.state is DeliveryState.SENT
    assert filed.finished_at >= filed.stored_at > 0


def test_an_entry_set_aside_says_why_and_waits_again_when_it_is_moved_back(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    set_aside(box, entry, "0x0122 SOP class not supported")
    aside = box.aside / f"{RUN}.report.sr.json"
    assert from_json(aside.read_bytes()).last_error == "0x0122 SOP class not supported"
    assert waiting(box) == ()
    aside.rename(box.folder / aside.name)
    assert kinds_waiting(box) == ["report.sr"]


def test_an_attempt_that_failed_is_counted_and_kept_with_its_time(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    put_off(box, entry, "no answer", 12345.0)
    later = waiting(box)[0]
    assert (later.attempts, later.last_error, later.not_before) == (1, "no answer", 12345.0)
    assert later.state is DeliveryState.RETRYING
    put_off(box, later, "no answer", 23456.0)
    assert waiting(box)[0].failing_since == later.failing_since > 0


def test_what_waits_of_a_run_is_not_what_waits_of_one_whose_name_begins_alike(layout: DataLayout) -> None:
    for run in ("1.2.3.g1", "1.2.3.g10", "1.2.3.g1.4.g1"):
        enqueue(layout, run, make_run(layout, run), [destination()])
    assert {entry.run for entry in waiting(box_of(layout, "pacs"), "1.2.3.g1")} == {"1.2.3.g1"}


def test_a_change_by_who_has_not_seen_the_last_one_is_not_written(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    later = put_off(box, entry, "no answer", 12345.0)
    assert not rewrite(box, entry, replace(entry, last_error="stale"))
    assert not finish(box, entry, replace(entry, state=DeliveryState.CONFIRMED))
    assert waiting(box) == (later,)


def test_an_entry_that_is_confirmed_lies_with_what_was_sent(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    confirmed = replace(entry, state=DeliveryState.CONFIRMED, finished_at=9.0)
    assert finish(box, entry, confirmed)
    assert from_json((box.sent / f"{entry.name}.json").read_bytes()) == confirmed
    assert (waiting(box), list(box.aside.iterdir())) == ((), [])


def test_failures_in_a_row_begin_with_the_first_of_them_and_end_with_a_success(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    first = put_off(box, entry, "no answer", 12345.0, since=7.0)
    assert first.failing_since == 7.0
    again = put_off(box, first, "no answer", 23456.0, since=9.0)
    assert again.failing_since == 7.0
    assert file_sent(box, again).failing_since == 0.0


def test_a_kill_between_filing_and_removing_does_not_send_twice(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    before = box.file(entry.name).read_bytes()
    file_sent(box, entry)
    box.file(entry.name).write_bytes(before)
    assert waiting(box) == ()
    assert not box.file(entry.name).exists()


def test_a_file_that_is_no_entry_is_set_aside_and_stops_nothing(layout: DataLayout) -> None:
    box, _ = one_waiting(layout)
    (box.folder / "torn.json").write_bytes(b'{"schema": "m3node')
    (box.folder / "copied.json").write_bytes(box.file(f"{RUN}.report.sr").read_bytes())
    assert kinds_waiting(box) == ["report.sr"]
    assert sorted(path.name for path in box.aside.iterdir()) == ["copied.json", "torn.json"]
