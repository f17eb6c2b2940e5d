"""When an attempt is repeated, and when no more."""

from __future__ import annotations

from m3node.delivery.back_off import back_off, gives_up, is_due
from m3node.settings import DeliverySettings


def test_back_off_doubles_and_is_capped() -> None:
    settings = DeliverySettings(retry_first_seconds=2.0, retry_max_seconds=60.0)
    assert [back_off(n, settings) for n in range(7)] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert back_off(10**6, settings) == 60.0


def test_an_entry_is_due_in_its_time_and_when_only_a_clock_that_was_set_back_says_that_it_is_not() -> None:
    settings = DeliverySettings(retry_first_seconds=2.0, retry_max_seconds=60.0)
    times = (999.0, 1000.0, 1001.0, 1060.0, 1061.0)
    assert [is_due(not_before, 1000.0, settings) for not_before in times] == [True, True, False, False, True]


def test_failures_in_a_row_are_given_up_after_the_time_that_is_set_and_never_without_one() -> None:
    settings = DeliverySettings(give_up_hours=1.0)
    assert [gives_up(1000.0, now, settings) for now in (1000.0, 4599.0, 4600.0)] == [False, False, True]
    assert not gives_up(0.0, 1e9, settings)
    assert not gives_up(1000.0, 1e9, DeliverySettings(give_up_hours=0.0))
