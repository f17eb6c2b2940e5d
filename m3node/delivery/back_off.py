"""When a delivery that failed is tried again, and when no more."""

from __future__ import annotations

from m3node.delivery.entry import Entry
from m3node.delivery.state import DeliveryState
from m3node.settings import DeliverySettings


def back_off(failures: int, delivery: DeliverySettings) -> float:
    """Return the seconds to wait after a failure that came after ``failures`` others: doubling, capped."""
    return float(min(delivery.retry_max_seconds, delivery.retry_first_seconds * 2.0 ** min(failures, 30)))


def is_due(not_before: float, now: float, delivery: DeliverySettings) -> bool:
    """Whether an entry's time has come.

    A time that is further ahead than the longest pause was written by a clock that has been set back since; waiting
    for it could take years.
    """
    return not_before <= now or not_before - now > delivery.retry_max_seconds


def gives_up(failing_since: float, now: float, delivery: DeliverySettings) -> bool:
    """Whether failures in a row have gone on for longer than the settings allow; ``give_up_hours`` of 0 never does."""
    return bool(delivery.give_up_hours) and failing_since > 0 and now - failing_since >= delivery.give_up_hours * 3600


def waits_for_its_turn(entry: Entry) -> bool:
    """Whether an attempt is to be made some time, and it is not a report of the destination that is waited for."""
    return not (entry.state is DeliveryState.STORED and entry.requested_at)


def due(entry: Entry, now: float, delivery: DeliverySettings) -> bool:
    """Whether an attempt is to be made now."""
    return waits_for_its_turn(entry) and is_due(entry.not_before, now, delivery)
