"""Counts of connections, rates of instances, and lines of the log: what holds whatever happens in whatever order."""

from __future__ import annotations

import logging
import resource
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.intake.receive.connections import Connections
from m3node.intake.receive.handles import waiting_that_fit
from m3node.intake.receive.rates import LONGEST_PAUSE, Bucket, Rates
from m3node.intake.receive.repeats import MOST, OTHERS, RepeatedLines
from m3node.settings import ListenerSettings

OPERATIONS = st.lists(
    st.tuples(st.just("add"), st.integers(0, 2), st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]))
    | st.tuples(st.just("admit"), st.integers(0, 30), st.sampled_from(["CT1", "CT2", "PACS"]))
    | st.tuples(st.just("remove"), st.integers(0, 30), st.just(""))
    | st.tuples(st.just("die"), st.integers(0, 2), st.just("")),
    max_size=60,
)


@given(OPERATIONS, st.integers(1, 6), st.integers(1, 5), st.integers(1, 3))
def test_no_limit_is_ever_passed_and_only_the_oldest_of_whom_most_waits_gives_way(
    operations: list[tuple[str, int, str]], max_waiting: int, max_associations: int, of_ct1: int
) -> None:
    table = Connections(max_waiting=max_waiting, max_associations=max_associations, of_title={"CT1": of_ct1})
    owners: dict[int, int] = {}  # what must be so, in plain words
    titles: dict[int, str] = {}
    addresses: dict[int, str] = {}

    def gone(numbers: list[int]) -> None:
        for number in numbers:
            owners.pop(number)
            titles.pop(number, None)

    added = 0
    for what, drawn, title in operations:
        which = drawn if what in ("add", "die") else drawn % (added + 1)  # sometimes one that has never been
        if what == "add":
            waiting = sorted(owners.keys() - titles.keys())
            displaced = table.displaced()
            assert (displaced is None) == (len(waiting) < max_waiting)
            if displaced is not None:
                counts = Counter(addresses[number] for number in waiting)
                oldest = next(number for number in waiting if counts[addresses[number]] == max(counts.values()))
                assert displaced == (oldest, owners[oldest])
                gone([oldest])
            number = table.add(which, title)
            owners[number], addresses[number] = which, title
            added += 1
        elif what == "admit":
            grant = table.admit(which, title)
            if which not in owners or which in titles:
                assert grant == "gone"
            elif len(titles) >= max_associations:
                assert grant == "all"
            elif title == "CT1" and Counter(titles.values())["CT1"] >= of_ct1:
                assert grant == "caller"
            else:
                assert grant == "granted"
                titles[which] = title
        elif what == "remove":
            table.remove(which)
            gone([which] if which in owners else [])
        else:
            dead = [number for number, owner in owners.items() if owner == which]
            assert table.remove_owner(which) == len(titles.keys() & set(dead))
            gone(dead)
        known = {number: table.of(number) for number in range(added + 1)}
        assert {number: node.ae_title for number, node in known.items() if node} == titles
        assert table.waiting == len(owners) - len(titles) <= max_waiting
        assert table.associations == len(titles) <= max_associations
        assert [table.load(owner) for owner in range(3)] == [list(owners.values()).count(owner) for owner in range(3)]


def test_as_many_are_admitted_as_are_allowed_and_not_one_more() -> None:
    table = Connections(max_waiting=10, max_associations=3, of_title={"CT1": 1})
    asked = [(table.add(0, "10.0.0.1"), title) for title in ("CT1", "CT1", "PACS", "PACS", "PACS")]
    assert [table.admit(*each) for each in asked] == ["granted", "caller", "granted", "granted", "all"]
    table.remove(asked[0][0])
    assert table.admit(*asked[1]) == "granted"
    assert table.admit(*asked[4]) == "all"


@pytest.mark.parametrize(
    ("flood", "honest"),
    [("2001:db8:1:2:{:x}::1", "2001:db8:1:3::1"), ("::ffff:10.0.0.1", "10.0.0.2"), ("fe80::{:x}%eth0", "10.0.0.1")],
)
def test_who_has_many_addresses_of_one_link_gives_way_to_himself(flood: str, honest: str) -> None:
    table = Connections(max_waiting=5, max_associations=1, of_title={})
    first = table.add(0, honest)
    for number in range(1, 50):
        displaced = table.displaced()
        assert displaced is None or displaced[0] != first
        table.add(0, flood.format(number * 0x1111 & 0xFFFF))
    assert table.admit(first, "CT1") == "granted"


@pytest.mark.parametrize(
    ("hard", "waiting"),
    [(resource.RLIM_INFINITY, 250), (1_000_000, 250), (806, 250), (805, 249), (600, 150), (100, 25)],
)
def test_where_few_files_may_be_open_those_that_wait_leave_associations_theirs(
    monkeypatch: pytest.MonkeyPatch, hard: int, waiting: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (100, hard))
    assert waiting_that_fit(ListenerSettings(max_waiting=250, max_associations=50)) == waiting


GAPS = st.lists(st.floats(0.0, 30.0) | st.just(0.0), min_size=1, max_size=60)


@given(st.integers(1, 600), GAPS)
def test_no_minute_takes_more_than_what_had_gathered_and_what_came_back(per_minute: int, gaps: list[float]) -> None:
    bucket, now, taken = Bucket(per_minute, 0.0), 0.0, []
    for gap in gaps:
        now += gap
        pause = bucket.pause(now)
        bucket.take(now)
        taken.append(now + pause)
    assert taken == sorted(taken)
    for start in taken:
        within = sum(start <= at < start + 60.0 for at in taken)
        assert within <= 2 * per_minute + 1


def test_an_hour_of_silence_saves_up_one_minute_and_a_clock_that_stands_gives_nothing() -> None:
    bucket = Bucket(60, 0.0)
    pauses = []
    for now in [3600.0] * 61 + [3590.0, 3600.5]:
        pauses.append(bucket.pause(now))
        bucket.take(now)
    assert pauses == pytest.approx([0.0] * 60 + [1.0, 2.0, 2.5])


@given(st.integers(1, 600), st.integers(1, 600), GAPS)
def test_a_sender_that_waits_for_each_answer_gets_each_of_a_limit_that_is_not_tiny(
    of_all: int, of_title: int, gaps: list[float]
) -> None:
    rates, now = Rates(of_all, {"CT1": of_title}, 0.0), 0.0
    for gap in [*gaps, *([0.0] * 700)]:
        now += gap
        turn = rates.turn("CT1", now)
        if min(of_all, of_title) >= 60 / LONGEST_PAUSE + 1:
            assert turn.seconds is not None
        assert turn.seconds is None or turn.seconds <= LONGEST_PAUSE
        assert bool(turn.setting) == (turn.seconds != 0.0)
        now += turn.seconds or 0.0


def test_what_is_refused_takes_no_turn_from_those_that_come_later() -> None:
    rates = Rates(0, {"CT1": 60}, 0.0)
    turns = [rates.turn("CT1", 0.0) for _ in range(1000)]
    assert [turn.seconds for turn in turns[:60]] == [0.0] * 60
    assert [turn.seconds for turn in turns[60:70]] == pytest.approx(range(1, 11))
    assert {(turn.seconds, turn.setting) for turn in turns[70:]} == {
        (None, "listener.callers.instances_per_minute = 60")
    }
    assert rates.turn("CT1", 20.0).seconds == 0.0


def test_one_caller_cannot_use_up_what_another_one_has_and_all_of_them_share_theirs() -> None:
    rates = Rates(0, {"CT1": 1}, 0.0)
    assert rates.turn("CT1", 0.0).seconds == 0.0
    assert rates.turn("CT1", 0.0).seconds is None
    assert rates.turn("CT2", 0.0).seconds == 0.0
    rates = Rates(2, {}, 0.0)
    assert [rates.turn(title, 0.0).seconds for title in ("CT1", "CT2", "PACS")] == [0.0, 0.0, None]
    assert rates.turn("CT1", 0.0).setting == "listener.instances_per_minute = 2"


def test_who_has_a_limit_of_his_own_waits_for_the_longer_of_two_and_uses_up_both() -> None:
    rates = Rates(120, {"CT1": 60}, 0.0)
    assert {rates.turn("CT1", 0.0).seconds for _ in range(60)} == {0.0}
    assert {rates.turn("PACS", 0.0).seconds for _ in range(58)} == {0.0}
    first = rates.turn("CT1", 0.0)
    assert (first.seconds, first.setting) == (pytest.approx(1.0), "listener.callers.instances_per_minute = 60")
    assert rates.turn("PACS", 0.0).seconds == 0.0  # the 120th of all
    after = rates.turn("PACS", 0.0)
    assert (after.seconds, after.setting) == (pytest.approx(0.5), "listener.instances_per_minute = 120")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock, caplog: pytest.LogCaptureFixture) -> RepeatedLines:
    caplog.set_level(logging.DEBUG)
    return RepeatedLines(logging.getLogger("test"), times=2, clock=clock)


def test_a_line_that_comes_again_and_again_is_counted_and_the_count_is_said_after_its_minute(
    lines: RepeatedLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        lines.say(logging.WARNING, "refused A")
    lines.say(logging.DEBUG, "refused B")
    lines.count()
    assert caplog.messages == ["refused A", "refused A", "refused B"]
    clock.now = 60.0
    lines.count()
    lines.count()
    assert caplog.messages[3:] == ["refused A: and 98 more within a minute"]
    lines.say(logging.WARNING, "refused A")
    assert caplog.messages[4:] == ["refused A"]
    assert [record.levelno for record in caplog.records] == [30, 30, 10, 30, 30]


def test_a_thousand_different_lines_a_minute_are_no_thousand_lines(
    lines: RepeatedLines, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        lines.say(logging.WARNING, f"refused {number}")
    assert len(caplog.messages) == MOST + 2
    lines.count(all_of_them=True)
    assert caplog.messages[-3:] == [OTHERS, OTHERS, f"{OTHERS}: and {1000 - MOST - 2} more within a minute"]
    clock.now = 1.0
    lines.say(logging.WARNING, "refused 999")
    assert caplog.messages[-1] == "refused 999"
