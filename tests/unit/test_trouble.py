"""Trouble with disk or database is said when it begins, once a minute, and when it is over; nothing else is trouble."""

from __future__ import annotations

import errno
import logging

import pytest

from m3node.errors import DatabaseError
from m3node.jobs.trouble import Trouble


class Fails:
    """Work that fails as often as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def test_trouble_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/a/file")
    away = DatabaseError("the database postgresql://m3@db/m3node cannot be used: gone")
    work = Fails(away, away, full)
    trouble = Trouble("jobs wait")
    with caplog.at_level(logging.INFO):
        assert [trouble.keeps_from(work) for _ in range(5)] == [True, True, True, False, False]
    assert caplog.messages == [
        "jobs wait: the database postgresql://m3@db/m3node cannot be used: gone; trying again",
        "jobs wait: works again",
    ]


def test_trouble_that_lasts_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    trouble = Trouble("jobs wait", clock=lambda: now[0])
    for second in range(150):
        now[0] = float(second)
        assert trouble.keeps_from(Fails(OSError(errno.ENOSPC, "No space left on device")))
    assert caplog.messages == 3 * ["jobs wait: No space left on device; trying again"]


def test_what_nobody_expected_is_no_trouble() -> None:
    with pytest.raises(ValueError, match="odd"):
        Trouble("jobs wait").keeps_from(Fails(ValueError("odd")))
