"""A destination that is down is tried by one entry at growing distances; the others wait for what it finds."""

from __future__ import annotations

import pytest

from m3node.delivery.reach import UNANSWERED_LIMIT, Reach
from m3node.settings import DeliverySettings

DELIVERY = DeliverySettings(retry_first_seconds=2.0, retry_max_seconds=10.0)


class Clock:
    """The monotonic clock, as a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("m3node.delivery.reach.time.monotonic", clock)
    return clock


@pytest.fixture
def reach(clock: Clock) -> Reach:
    return Reach(DELIVERY)


def test_a_destination_that_nobody_has_tried_is_open_to_all(reach: Reach) -> None:
    assert reach.why("pacs") == ""
    assert not reach.closed_to("pacs", "a")


def test_a_destination_without_a_connection_is_open_to_its_probe_only_and_others_are_not_touched(reach: Reach) -> None:
    reach.unreachable("pacs", "a", "refused")
    assert reach.why("pacs") == "refused"
    assert reach.is_probe("pacs", "a")
    assert not reach.closed_to("pacs", "a")
    assert reach.closed_to("pacs", "b")
    assert not reach.closed_to("viewer", "b")


def test_the_distance_between_two_tries_doubles_up_to_the_longest_pause(reach: Reach) -> None:
    assert [reach.unreachable("pacs", "a", "refused") for _ in range(5)] == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_an_answer_opens_the_destination_and_the_distances_begin_anew(reach: Reach) -> None:
    reach.unreachable("pacs", "a", "refused")
    reach.unreachable("pacs", "a", "refused")
    reach.answered("pacs")
    assert not reach.closed_to("pacs", "b")
    assert reach.unreachable("pacs", "b", "refused") == 2.0


def test_three_objects_in_a_row_without_an_answer_close_it_and_fewer_do_not(reach: Reach) -> None:
    for _ in range(UNANSWERED_LIMIT - 1):
        reach.unanswered("pacs", "a", "no answer")
        assert reach.why("pacs") == ""
    reach.answered("pacs")
    for name in "abc":
        assert reach.why("pacs") == ""
        reach.unanswered("pacs", name, "no answer")
    assert reach.is_probe("pacs", "c")


def test_the_next_try_is_again_of_three_objects_so_that_one_bad_object_blocks_no_other(reach: Reach) -> None:
    for name in "abc":
        reach.unanswered("pacs", name, "no answer")
    reach.unanswered("pacs", "c", "no answer")
    assert not reach.closed_to("pacs", "d")
    reach.unanswered("pacs", "d", "no answer")
    assert not reach.closed_to("pacs", "e")
    reach.unanswered("pacs", "e", "no answer")
    assert reach.is_probe("pacs", "e")


def test_whoever_comes_takes_the_place_of_a_probe_that_was_cancelled_or_never_came(reach: Reach, clock: Clock) -> None:
    reach.unreachable("pacs", "a", "refused")
    reach.dismiss("pacs")
    assert not reach.closed_to("pacs", "b")
    reach.unreachable("pacs", "b", "refused")
    clock.now += 4.0 + DELIVERY.retry_max_seconds
    assert not reach.closed_to("pacs", "c")
