"""Reports are acted on from their files: once, for the delivery that they are about, and also after a kill."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from committing import (
    NAME,
    NOW,
    RUN,
    Asked,
    here,
    instances,
    reported,
)

from fake_pacs import fake_pacs
from m3node.delivery import commitment, commitment_reports
from m3node.delivery.commitment import after_store, review_stored
from m3node.delivery.entry import Entry, to_json
from m3node.delivery.outbox import Box, box_of, rewrite, waiting
from m3node.delivery.recall import cancel
from m3node.delivery.state import DeliveryState
from m3node.intake.receive.commitment import acted_file, forget_reports, report_file
from m3node.layout import DataLayout


def test_a_clock_that_was_set_back_does_not_wait_for_years(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        it.stored()
    assert [entry.state for entry in review_stored(it.layout, it.settings, NOW - 1e8)] == [DeliveryState.WAITING]


def test_a_report_that_comes_too_late_spares_the_sending(tmp_path: Path) -> None:
    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        it.stored()
        review_stored(it.layout, it.settings, NOW + 3600)
        reported(it, asked.transactions[0], [it.entry.sop_instance_uid])
        assert [entry.state for entry in it.sweep()] == [DeliveryState.CONFIRMED]
        assert len(asked.transactions) == 1


def test_a_failure_that_comes_too_late_changes_nothing_and_it_is_asked_for_anew(tmp_path: Path) -> None:
    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        it.stored()
        (again,) = review_stored(it.layout, it.settings, NOW + 3600)
        reported(it, asked.transactions[0], [], [it.entry.sop_instance_uid])
        assert it.sweep() == []
        assert it.entry == again
        assert it.reports("acted") == asked.transactions
        after = it.stored(NOW + 4000)
    assert (after.state, after.stored_at, after.requested_at) == (DeliveryState.STORED, NOW + 4000, NOW + 4000)
    assert len(set(asked.transactions)) == 2


def test_one_that_failed_beside_one_that_is_committed_decides_for_itself_only(tmp_path: Path) -> None:
    other = instances(1)[0]
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
        reported(it, mine.transaction_uid, [mine.sop_instance_uid], [other])
        assert [entry.state for entry in it.sweep()] == [DeliveryState.CONFIRMED]


@pytest.mark.parametrize(
    ("committed", "failed", "error"),
    [
        pytest.param(False, True, "0x0119 class-instance conflict", id="failed"),
        pytest.param(True, True, "0x0119 class-instance conflict", id="named in both"),
        pytest.param(False, False, "the report does not name it", id="not named"),
    ],
)
def test_only_a_report_that_names_it_as_committed_confirms(
    tmp_path: Path, committed: bool, failed: bool, error: str
) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    uids = [mine.sop_instance_uid]
    reported(it, mine.transaction_uid, [*instances(1), *uids * committed], uids * failed, reason=0x0119)
    (after,) = it.sweep()
    assert (after.state, after.last_error) == (DeliveryState.WAITING, f"not committed to: {error}")


def test_a_failure_of_a_request_that_another_has_just_followed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    reported(it, mine.transaction_uid, [], [mine.sop_instance_uid])
    anew = replace(mine, transaction_uid="2.25.6", requested_at=NOW + 1)
    settle = commitment_reports.settle

    def asked_anew_before(box: Box, *more: Any) -> Entry | None:
        assert rewrite(box, mine, anew)
        return settle(box, *more)

    monkeypatch.setattr(commitment_reports, "settle", asked_anew_before)
    assert it.sweep() == []
    assert it.entry == anew
    assert it.reports("acted") == [mine.transaction_uid]


def test_a_report_that_is_cancelled_or_has_ended_meanwhile_changes_nothing(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    box = box_of(it.layout, "pacs")
    for folder in (box.aside, box.sent):
        box.file(NAME).rename(folder / f"{NAME}.json")
        acted_file(it.layout, mine.transaction_uid).unlink(missing_ok=True)
        reported(it, mine.transaction_uid, [mine.sop_instance_uid])
        assert it.sweep() == []
        assert it.entry == mine
        assert it.reports("acted") == [mine.transaction_uid]
        assert it.reports("unknown") == []
        (folder / f"{NAME}.json").rename(box.file(NAME))


def test_a_transaction_that_nothing_waits_for_is_kept_apart_and_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    reported(it, "2.25.99", [mine.sop_instance_uid])
    assert it.sweep() == []
    assert it.reports("unknown") == ["2.25.99"]
    assert "PACS names transaction 2.25.99" in caplog.text
    assert it.entry == mine


def test_another_destinations_word_does_not_count(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    reported(it, mine.transaction_uid, [mine.sop_instance_uid], sender="OTHER")
    assert it.sweep() == []
    assert (it.reports("unknown"), it.entry) == ([mine.transaction_uid], mine)


def test_a_report_file_that_is_damaged_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    (it.layout.commitments / "2.25.1.json").write_text("{")
    reported(it, mine.transaction_uid, [mine.sop_instance_uid])
    assert [entry.state for entry in it.sweep()] == [DeliveryState.CONFIRMED]
    assert it.reports("unknown") == ["2.25.1"]
    assert "2.25.1.json is no storage commitment report" in caplog.text


def test_a_report_file_that_the_disk_refuses_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        it.stored()
        refused = report_file(it.layout, "1.2.9")
        refused.mkdir()
        reported(it, asked.transactions[0], [it.entry.sop_instance_uid])
        assert [entry.state for entry in it.sweep()] == [DeliveryState.CONFIRMED]
    assert "1.2.9.json cannot be read (Is a directory), and waits" in caplog.text
    assert it.reports() == ["1.2.9"]


def test_five_thousand_wait_and_the_report_of_one_finds_it(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    box = box_of(it.layout, "pacs")
    for number in range(5000):
        name = f"1.2.3.{number}.g1.segmentation.seg"
        box.file(name).write_bytes(to_json(replace(mine, name=name, transaction_uid=f"2.25.5.{number}")))
    reported(it, "2.25.5.4321", [mine.sop_instance_uid])
    reported(it, mine.transaction_uid, [mine.sop_instance_uid])
    assert {entry.name for entry in it.sweep()} == {"1.2.3.4321.g1.segmentation.seg", NAME}
    assert len(waiting(box)) == 4999


def test_a_destination_that_need_not_commit_any_more_has_what_it_stored(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        it.stored()
        relaxed = it.settings.model_copy(update={"destinations": (pacs.destination(),)})
    (after,) = review_stored(it.layout, relaxed, NOW + 5)
    assert (after.state, after.finished_at) == (DeliveryState.SENT, NOW + 5)
    assert it.entry == after
    assert waiting(box_of(it.layout, "pacs")) == ()


def test_a_destination_that_need_not_commit_any_more_is_not_asked_again(tmp_path: Path) -> None:
    asked = Asked(lambda *_: 0x0110)
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        assert it.stored().state is DeliveryState.STORED
        destination = it.destination.model_copy(update={"commitment": False})
        after = after_store(it.layout, destination, it.entry, it.settings, NOW + 60)
    assert (after.state, after) == (DeliveryState.SENT, it.entry)
    assert len(asked.transactions) == 1


def test_an_entry_that_was_cancelled_while_it_was_stored_counts_as_sent_and_nobody_is_asked(tmp_path: Path) -> None:
    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        on_the_wire = it.entry
        assert cancel(it.layout, RUN, "superseded") != ()
        after = after_store(it.layout, it.destination, on_the_wire, it.settings, NOW)
    assert after.state is DeliveryState.SENT
    assert it.entry == after
    assert list(box_of(it.layout, "pacs").aside.iterdir()) == []
    assert asked.transactions == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


@pytest.mark.parametrize("point", ["commit.before", "commit.inside", "commit.after"])
def test_killed_at_any_point_it_goes_on_from_its_file_and_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def die(name: str) -> None:
        if name == point:
            raise Killed

    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        with monkeypatch.context() as patch:
            patch.setattr(commitment, "fault_point", die)
            with pytest.raises(Killed):
                it.stored()
        left = it.entry
        assert (left.state, left.stored_at, bool(left.requested_at)) == (
            DeliveryState.STORED,
            NOW,
            point == "commit.after",
        )
        assert len(asked.transactions) == (point != "commit.before")
        after = it.stored(NOW + 1)
        # Asked already, it is not asked again: its report may come any time.
        assert len(asked.transactions) == {"commit.before": 1, "commit.inside": 2, "commit.after": 1}[point]
        reported(it, after.transaction_uid, [after.sop_instance_uid])
        assert [entry.state for entry in it.sweep()] == [DeliveryState.CONFIRMED]


def test_killed_before_the_request_was_noted_the_first_requests_report_confirms_and_nobody_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str) -> None:
        if name == "commit.inside":
            raise Killed

    asked = Asked()
    with fake_pacs(commit=asked) as pacs:
        it = here(tmp_path, pacs)
        with monkeypatch.context() as patch:
            patch.setattr(commitment, "fault_point", die)
            with pytest.raises(Killed):
                it.stored()
        reported(it, asked.transactions[0], [it.entry.sop_instance_uid])
        assert it.stored(NOW + 1).state is DeliveryState.CONFIRMED
    assert len(asked.transactions) == 1


def test_killed_before_the_entrys_file_says_it_the_report_is_acted_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> bool:
        raise Killed

    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    reported(it, mine.transaction_uid, [mine.sop_instance_uid])
    with monkeypatch.context() as patch:
        patch.setattr(commitment_reports, "write", die)
        with pytest.raises(Killed):
            it.sweep()
    assert [entry.state for entry in it.sweep()] == [DeliveryState.CONFIRMED]


def test_killed_between_the_entrys_file_and_the_reports_the_report_is_filed_away_later(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    reported(it, mine.transaction_uid, [mine.sop_instance_uid])
    (done,) = it.sweep()
    acted_file(it.layout, mine.transaction_uid).rename(report_file(it.layout, mine.transaction_uid))
    assert it.sweep() == []
    assert it.entry == done
    assert (it.reports(), it.reports("acted")) == ([], [mine.transaction_uid])


def test_old_reports_are_forgotten_and_one_that_waits_is_not(tmp_path: Path) -> None:
    with fake_pacs(commit=Asked()) as pacs:
        it = here(tmp_path, pacs)
        mine = it.stored()
    for transaction in ("2.25.1", "2.25.2", mine.transaction_uid):
        reported(it, transaction, [mine.sop_instance_uid])
    it.sweep()
    reported(it, "2.25.3", [])
    for path in it.layout.commitments.rglob("*.json"):
        os.utime(path, (NOW, NOW if path.stem != "2.25.2" else NOW + 1000))
    assert forget_reports(it.layout, NOW + 500) == 2
    assert (it.reports("acted"), it.reports("unknown"), it.reports()) == ([], ["2.25.2"], ["2.25.3"])
    assert forget_reports(DataLayout(tmp_path / "new"), NOW) == 0
