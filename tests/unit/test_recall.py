"""What waits can be taken back and asked back, whatever an attempt makes of it meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fake_pacs import make_run
from m3node.delivery.entry import Entry, from_json
from m3node.delivery.outbox import (
    Box,
    as_filed,
    box_of,
    file_sent,
    finish,
    put_off,
    read_entry,
    rewrite,
    set_aside,
    waiting,
)
from m3node.delivery.queueing import enqueue
from m3node.delivery.recall import cancel, cancel_one, requeue
from m3node.delivery.state import DeliveryState
from m3node.layout import DataLayout
from queued import RUN, destination, one_waiting


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "data")
    layout.create()
    return layout


def test_cancelling_a_run_sets_aside_what_waits_of_it_for_every_destination_and_nothing_else(
    layout: DataLayout,
) -> None:
    both = [destination("a"), destination("b")]
    enqueue(layout, "1.2.3.g1", make_run(layout, "1.2.3.g1"), both)
    enqueue(layout, "1.2.3.g2", make_run(layout, "1.2.3.g2"), both)
    sent = waiting(box_of(layout, "a"))[0]
    file_sent(box_of(layout, "a"), sent)
    cancelled = cancel(layout, "1.2.3.g1", "superseded by 1.2.3.g2")
    assert {(entry.run, entry.state) for entry in cancelled} == {("1.2.3.g1", DeliveryState.CANCELLED)}
    assert len(cancelled) == 7
    for name in ("a", "b"):
        assert {entry.run for entry in waiting(box_of(layout, name))} == {"1.2.3.g2"}
    assert (box_of(layout, "a").sent / f"{sent.name}.json").exists()
    assert len(list(box_of(layout, "a").aside.iterdir())) == 3


def test_an_object_that_the_destination_has_and_whose_commitment_is_awaited_is_not_cancelled(
    layout: DataLayout,
) -> None:
    box, entry = one_waiting(layout)
    stored = replace(entry, state=DeliveryState.STORED, stored_at=5.0)
    assert rewrite(box, entry, stored)
    assert cancel(layout, RUN, "superseded") == ()
    assert cancel_one(layout, "pacs", entry.name, "not wanted") is None
    assert waiting(box) == (stored,)


def test_one_delivery_is_cancelled_with_its_reason(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    cancelled = cancel_one(layout, "pacs", entry.name, "not wanted")
    assert cancelled is not None
    assert (cancelled.state, cancelled.last_error) == (DeliveryState.CANCELLED, "not wanted")
    assert waiting(box) == ()
    assert cancel_one(layout, "pacs", entry.name, "not wanted") is None


def test_a_dead_letter_can_be_dismissed_and_asked_back(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    set_aside(box, entry, "refused with 0xA900")
    dismissed = cancel_one(layout, "pacs", entry.name, "not wanted")
    assert dismissed is not None
    assert (dismissed.state, dismissed.last_error) == (
        DeliveryState.CANCELLED,
        "not wanted; it was dead: refused with 0xA900",
    )
    assert from_json((box.aside / f"{entry.name}.json").read_bytes()) == dismissed
    assert cancel_one(layout, "pacs", entry.name, "not wanted") is None
    assert requeue(layout, "pacs", entry.name) is not None


def test_a_dead_letter_that_is_requeued_waits_to_be_sent_at_once_with_its_attempts_kept(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    dead = set_aside(box, put_off(box, entry, "no answer", 12345.0), "no answer for 72 h")
    assert (dead.state, dead.attempts) == (DeliveryState.DEAD, 1)
    assert dead.failing_since > 0
    again = requeue(layout, "pacs", entry.name)
    assert again is not None
    assert waiting(box) == (again,)
    assert (again.state, again.attempts, again.failing_since, again.not_before) == (DeliveryState.WAITING, 1, 0.0, 0.0)
    assert list(box.aside.iterdir()) == []
    assert requeue(layout, "pacs", entry.name) is None


def test_a_dead_letter_that_is_requeued_is_sent_and_asked_for_as_if_it_had_never_been(layout: DataLayout) -> None:
    box, entry = one_waiting(layout)
    stored = replace(
        entry, state=DeliveryState.STORED, stored_at=5.0, transaction_uid="1.2.3", requested_at=6.0, failing_since=4.0
    )
    assert rewrite(box, entry, stored)
    set_aside(box, stored, "no report of its commitment within 3600 s")
    assert requeue(layout, "pacs", entry.name) == replace(entry, last_error="no report of its commitment within 3600 s")


def test_an_attempt_on_a_cancelled_entry_does_not_bring_it_back(layout: DataLayout) -> None:
    box, on_the_wire = one_waiting(layout)
    cancel(layout, RUN, "superseded")
    put_off(box, on_the_wire, "no answer", 0.0)
    assert waiting(box) == ()


def test_what_an_attempt_made_of_an_entry_that_was_cancelled_meanwhile_is_told_as_its_file_says_it(
    layout: DataLayout,
) -> None:
    box, entry = one_waiting(layout)
    cancelled = cancel_one(layout, "pacs", entry.name, "not wanted")
    assert put_off(box, entry, "no answer", 0.0) == cancelled
    assert set_aside(box, entry, "refused with 0xA900") == cancelled
    assert as_filed(box, entry) == cancelled


@pytest.mark.parametrize("how", ["run", "one"])
def test_an_attempt_that_is_written_down_meanwhile_keeps_nothing_from_being_cancelled(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    box, entry = one_waiting(layout)
    meanwhile = [12345.0, 23456.0]

    def finish_too_late(its: Box, was: Entry, done: Entry) -> bool:
        if meanwhile:
            put_off(its, was, "no answer", meanwhile.pop())
        return finish(its, was, done)

    monkeypatch.setattr("m3node.delivery.recall.finish", finish_too_late)
    if how == "run":
        (cancelled,) = cancel(layout, RUN, "superseded")
    else:
        cancelled = cancel_one(layout, "pacs", entry.name, "superseded")
        assert cancelled is not None
    assert (cancelled.state, cancelled.attempts, cancelled.last_error) == (DeliveryState.CANCELLED, 2, "superseded")
    assert waiting(box) == ()
    assert as_filed(box, entry) == cancelled


def test_one_that_is_stored_while_it_is_cancelled_is_not_said_to_be_cancelled(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, entry = one_waiting(layout)

    def stored_before(its: Box, was: Entry, done: Entry) -> bool:
        file_sent(its, was)
        return finish(its, was, done)

    monkeypatch.setattr("m3node.delivery.recall.finish", stored_before)
    assert cancel(layout, RUN, "superseded") == ()
    assert cancel_one(layout, "pacs", entry.name, "superseded") is None
    assert as_filed(box, entry).state is DeliveryState.SENT


def test_an_entry_that_is_requeued_while_somebody_looks_for_it_is_not_lost(
    layout: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, entry = one_waiting(layout)
    set_aside(box, entry, "refused with 0xA900")
    aside = box.aside / f"{entry.name}.json"
    exists = Path.exists

    def seen_and_gone(path: Path) -> bool:
        found = exists(path)
        if path == aside and found:
            monkeypatch.undo()
            assert requeue(layout, "pacs", entry.name) is not None
        return found

    monkeypatch.setattr(Path, "exists", seen_and_gone)
    read_entry(box, entry.name)
    assert not exists(aside)
    assert [again.name for again in waiting(box)] == [entry.name]


def test_an_entry_cancelled_while_it_was_stored_counts_as_sent(layout: DataLayout) -> None:
    box, on_the_wire = one_waiting(layout)
    cancel(layout, RUN, "superseded")
    file_sent(box, on_the_wire)
    assert [path.name for path in box.sent.iterdir()] == [f"{RUN}.report.sr.json"]
    assert list(box.aside.iterdir()) == []
