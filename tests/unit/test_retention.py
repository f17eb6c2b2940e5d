"""Received pixels go when nobody needs them any more, and not before."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housekeeping import HOUR, House
from m3node.delivery.state import DeliveryState
from m3node.disk import Watermark
from m3node.imaging.digest import content_digest
from m3node.intake.keeper.answering import Answering
from m3node.intake.keeper.index import Index
from m3node.intake.keeper.purging import Held
from m3node.jobs.answer.rejections import record_rejection
from m3node.jobs.keeping.ends import boxes, end_of_run, ends_of_series
from m3node.jobs.keeping.retention import EARLY_SECONDS, Retention, over
from m3node.rejection import Reason, Rejection
from m3node.settings import RetentionSettings, Settings

NOW = 1_800_000_000.0
GRACE = 24.0


class Disk:
    """A disk on which every series that is named makes room for the next look."""

    def __init__(self, free: float = 1e6, each: float = 0.0) -> None:
        self.free, self.each = free, each

    def mark(self) -> Watermark:
        return Watermark(Path(), 1000.0, measure=lambda _: self.free, clock=lambda: 0.0)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def held(*series: str, study: str = "1", answered_at: float = NOW - 100 * HOUR) -> list[Held]:
    return [Held(name, frozenset({study}), answered_at) for name in series]


def gone(
    house: House, there: Sequence[Held], *, hours: float = GRACE, now: float = NOW, disk: Disk | None = None
) -> list[str]:
    """The series that go, in their order."""
    disk = disk or Disk()
    settings = Settings(data_dir=house.layout.root, retention=RetentionSettings(received_hours=hours))
    named = []
    for series in Retention(settings, low=disk.mark(), clock=lambda: now)(there):
        named.append(series)
        disk.free += disk.each
    return named


def test_a_series_goes_a_time_after_its_last_delivery(house: House) -> None:
    house.run("1.2", ended=NOW - 30 * HOUR)
    house.delivery("1.2.g1", DeliveryState.SENT, ended=NOW - 20 * HOUR)
    assert gone(house, held("1.2")) == []
    assert gone(house, held("1.2"), now=NOW + 3 * HOUR) == []
    assert gone(house, held("1.2"), now=NOW + 5 * HOUR) == ["1.2"]


def test_while_all_are_young_no_folder_is_looked_through(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", None)
    assert gone(house, held("1.2", answered_at=NOW - HOUR)) == []


def test_without_a_time_received_pixels_stay_for_ever_even_on_a_full_disk(house: House) -> None:
    house.run("1.2", ended=NOW - 1000 * HOUR)
    assert gone(house, held("1.2"), hours=0.0, disk=Disk(free=1.0)) == []


@pytest.mark.parametrize(
    ("state", "goes"),
    [
        (DeliveryState.WAITING, False),
        (DeliveryState.RETRYING, False),
        (DeliveryState.UNKNOWN, False),
        (DeliveryState.STORED, False),
        (DeliveryState.DEAD, False),
        (DeliveryState.SENT, True),
        (DeliveryState.CONFIRMED, True),
        (DeliveryState.CANCELLED, True),
    ],
)
def test_every_delivery_must_be_over_and_a_dead_letter_is_not(house: House, state: DeliveryState, goes: bool) -> None:
    house.run("1.2", ended=NOW - 100 * HOUR)
    house.delivery("1.2.g1", DeliveryState.CONFIRMED, destination="pacs", ended=NOW - 90 * HOUR)
    house.delivery("1.2.g1", state, destination="second", ended=NOW - 90 * HOUR)
    assert gone(house, held("1.2")) == (["1.2"] if goes else [])


def test_a_delivery_of_a_destination_that_is_not_in_the_settings_any_more_counts(house: House) -> None:
    house.run("1.2", ended=NOW - 100 * HOUR)
    house.delivery("1.2.g1", DeliveryState.WAITING, destination="former", ended=0)
    assert gone(house, held("1.2")) == []


def test_a_generation_that_has_not_ended_keeps_its_series(house: House) -> None:
    house.run("1.2", ended=NOW - 100 * HOUR)
    house.manifest("1.2.g2")
    assert gone(house, held("1.2")) == []


def test_stacks_of_a_series_go_together(house: House) -> None:
    house.run("1.2", stack="a1b2c3d4", ended=NOW - 100 * HOUR)
    house.manifest("1.2.e5f60718.g1")
    assert gone(house, held("1.2")) == []
    house.run("1.2", stack="e5f60718", ended=NOW - 100 * HOUR)
    assert gone(house, held("1.2")) == ["1.2"]


def test_a_series_is_over_with_the_last_of_its_runs(house: House) -> None:
    for stack, hours in (("a1b2c3d4", 30), ("e5f60718", 10), ("0a1b2c3d", 20)):
        house.run("1.2", stack=stack, ended=NOW - hours * HOUR)
    ends = [end_of_run(folder, boxes(house.layout)) for folder in house.layout.results.iterdir()]
    assert {ends_of_series(order) for order in permutations(ends)} == {NOW - 10 * HOUR}


def test_a_series_whose_name_begins_another_is_not_taken_for_it(house: House) -> None:
    house.run("1.2", ended=NOW - 100 * HOUR)
    house.run("1.2.12345678", ended=NOW)
    assert gone(house, [*held("1.2"), *held("1.2.12345678", study="2")]) == ["1.2"]


def test_a_failed_run_keeps_what_it_was_given_until_a_newer_generation_has_answered(house: House) -> None:
    failed = Rejection(Reason.FAILED, "the worker died; the input is kept", "1.2")
    first = house.run("1.2", ended=NOW - 100 * HOUR, rejection=failed)
    assert gone(house, held("1.2")) == []
    house.run("1.2", generation=2, supersedes=first, ended=NOW - 90 * HOUR)
    assert gone(house, held("1.2")) == ["1.2"]


def test_a_run_that_was_not_fit_or_was_taken_back_keeps_nothing(house: House) -> None:
    house.run("1.2", ended=NOW - 100 * HOUR, rejection=Rejection(Reason.TILTED, "tilted", "1.2"))
    house.run("1.3", ended=NOW - 100 * HOUR, cancelled="by a person")
    assert gone(house, held("1.2", "1.3")) == ["1.2", "1.3"]


def test_a_damaged_record_keeps_its_series(house: House) -> None:
    house.run("1.2", ended=NOW - 100 * HOUR)
    (house.layout.results / "1.2.g1" / "run.json").write_text("{")
    assert gone(house, held("1.2")) == []


def test_a_series_that_could_not_be_judged_is_kept(house: House) -> None:
    answering = Answering(
        house.layout,
        Settings(),
        Index(house.layout.index),
        record=partial(record_rejection, house.layout),
        content_digest=content_digest,
    )
    answering.fail("1.2", "it broke")
    assert gone(house, held("1.2", "1.3")) == ["1.3"]


def test_what_has_no_run_goes_with_the_rest_of_its_study(house: House) -> None:
    house.manifest("1.2.g1")
    there = [*held("1.2", "1.8"), *held("1.9", study="2")]
    assert gone(house, there) == ["1.9"]
    house.run("1.2", ended=NOW - 30 * HOUR)
    assert gone(house, there) == ["1.9", "1.2", "1.8"]


def test_below_the_mark_the_oldest_go_at_once_until_there_is_room(house: House) -> None:
    for number in range(6):
        house.run(f"1.{number}", ended=NOW - (10 - number) * HOUR)
    house.manifest("1.9.g1")
    there = held("1.9", *(f"1.{number}" for number in (3, 1, 5, 0, 4, 2)))
    assert gone(house, there, disk=Disk(free=1e6)) == []
    # The mark is 1000 MB, and it counts as passed a little above it.
    assert gone(house, there, disk=Disk(free=700.0, each=100.0)) == ["1.0", "1.1", "1.2", "1.3"]
    assert gone(house, there, disk=Disk(free=1.0)) == [f"1.{number}" for number in range(6)]


def test_below_the_mark_what_may_still_be_waited_for_stays_a_while(house: House) -> None:
    there = held("1.8", answered_at=NOW - 60.0)
    assert gone(house, there, disk=Disk(free=1.0)) == []
    assert gone(house, there, now=NOW + EARLY_SECONDS, disk=Disk(free=1.0)) == ["1.8"]
    house.run("1.2", ended=NOW - 30.0)
    there += held("1.2", study="2", answered_at=NOW - 90.0)
    assert gone(house, there, disk=Disk(free=1.0)) == ["1.2"], "it keeps nothing else"


def test_what_has_no_run_waits_for_a_series_of_its_study_that_has_just_been_answered(house: House) -> None:
    house.run("1.2", ended=NOW)
    there = [*held("1.2", answered_at=NOW - HOUR), *held("1.8")]
    assert gone(house, there) == []
    assert gone(house, there, now=NOW + GRACE * HOUR) == ["1.2", "1.8"]


def test_a_seg_that_came_first_waits_for_the_images_of_its_study_even_on_a_full_disk(house: House) -> None:
    there = [*held("1.8"), *held("1.2", answered_at=math.inf)]
    assert gone(house, there) == []
    assert gone(house, there, disk=Disk(free=1.0)) == []


@given(
    series=st.lists(
        st.tuples(
            st.sampled_from(["1", "2", "3"]),
            st.floats(0, 1e9),
            st.one_of(st.just("no run"), st.none(), st.floats(0, 1e9)),
        ),
        max_size=8,
    )
)
def test_nothing_is_over_before_any_of_its_runs_and_all_else_is(
    series: list[tuple[str, float, str | float | None]],
) -> None:
    there = [Held(str(number), frozenset({study}), at) for number, (study, at, _) in enumerate(series)]
    runs = {str(number): end for number, (_, _, end) in enumerate(series) if not isinstance(end, str)}
    since = over(there, runs)
    for item in there:
        of_study = [other.series for other in there if other.studies == item.studies and other.series in runs]
        ends = [runs[item.series]] if item.series in runs else [runs[name] for name in of_study]
        known = [end for end in ends if end is not None]
        assert (item.series in since) == (len(known) == len(ends))
        if item.series in since:
            assert since[item.series] == max([item.answered_at, *known])
