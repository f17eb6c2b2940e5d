"""How long a series is waited for."""

from __future__ import annotations

import pytest

from m3node.intake.keeper.completeness import Patience, Stillness, patience
from m3node.settings import Caller, CompletenessSettings, ListenerSettings, LiverSettings, Settings

CALLERS = (
    Caller(ae_title="SCANNER", quiet_seconds=3.0),
    Caller(ae_title="ARCHIVE", quiet_seconds=40.0),
    Caller(ae_title="CONTOURS", wait_for_seg_seconds=100.0),
)


def settings(*, use_seg: bool = True) -> Settings:
    return Settings(
        listener=ListenerSettings(callers=CALLERS),
        completeness=CompletenessSettings(quiet_seconds=10.0),
        liver=LiverSettings(use_received_seg=use_seg),
    )


@pytest.mark.parametrize(
    ("senders", "quiet", "seg"),
    [
        ((), 10.0, 0.0),
        (("",), 10.0, 0.0),
        (("STRANGER",), 10.0, 0.0),
        (("SCANNER",), 3.0, 0.0),
        (("SCANNER", "STRANGER"), 10.0, 0.0),
        (("SCANNER", "ARCHIVE"), 40.0, 0.0),
        (("CONTOURS", "SCANNER"), 10.0, 100.0),
    ],
)
def test_the_most_patient_sender_counts(senders: tuple[str, ...], quiet: float, seg: float) -> None:
    assert patience(senders, settings()) == Patience(quiet, seg)


def test_no_seg_is_waited_for_where_received_segs_are_not_used() -> None:
    assert patience(("CONTOURS",), settings(use_seg=False)).seg_seconds == 0.0


def test_a_series_is_complete_after_the_quiet_period_since_the_last_sign_of_life() -> None:
    still = Stillness(100.0)
    wait = Patience(10.0, 0.0)
    still.touch(105.0)
    assert not still.complete(114.9, wait, has_seg=False)
    assert still.complete(115.0, wait, has_seg=False)


def test_a_sign_of_life_from_the_past_does_not_shorten_the_wait() -> None:
    still = Stillness(100.0)
    still.touch(90.0)
    assert still.active_at == 100.0


def test_a_seg_that_is_there_ends_the_wait_for_it_but_not_the_quiet_period() -> None:
    still = Stillness(0.0)
    wait = Patience(10.0, 30.0)
    assert not still.complete(39.0, wait, has_seg=False)
    assert still.complete(40.0, wait, has_seg=False)
    assert still.complete(10.0, wait, has_seg=True)
    assert not still.complete(9.0, wait, has_seg=True)
