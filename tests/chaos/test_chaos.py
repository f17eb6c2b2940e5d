"""Kills of any role, failing archives, both databases: every series is answered and every object arrives, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import Outcome, Plan, run

SERIES, KILLS = 12, 8


@pytest.mark.slow
def test_no_kill_and_no_failing_archive_loses_or_doubles_anything_on_sqlite(tmp_path: Path) -> None:
    _holds(run(Plan(SERIES, KILLS, seed=3), tmp_path))


@pytest.mark.slow
def test_no_kill_and_no_failing_archive_loses_or_doubles_anything_on_postgresql(
    tmp_path: Path, postgres_url: str
) -> None:
    _holds(run(Plan(SERIES, KILLS, seed=4, database_url=postgres_url), tmp_path))


def _holds(outcome: Outcome) -> None:
    print(outcome)
    assert not outcome.faults, f"{outcome}\n{outcome.log[-5000:]}"
    assert outcome.answers.answered == SERIES
    assert sum(outcome.kills.values()) == KILLS
