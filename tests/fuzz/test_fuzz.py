"""No hostile peer takes a process down, keeps a place, fills the memory, or has an honest sender wait in vain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzzing.cases import make_case

from fuzz import Plan, right_series, run
from m3node.faults import VARIABLE
from quick_series import quick_environment

CASES = 1500
"""A part of what ``make fuzz`` does."""

PLANTED = """
import time
from m3node.intake.receive import identity, spool
identify, link, kept = identity.identify, spool._link, []

def worse(data, syntax):
    kept.append(bytearray(b"x") * 4_000_000)
    if len(data) == 0:
        raise RuntimeError("planted")
    if bytes(data[:4]) != bytes.fromhex("08000500"):
        time.sleep(12)
    return identify(data, syntax)

def lose(temporary, folder, uid, *rest):
    return spool.Stored(folder, "new") if uid.endswith(".3") else link(temporary, folder, uid, *rest)

identity.identify, spool._link = worse, lose
"""


@pytest.mark.slow
def test_hostile_peers_harm_themselves_and_nobody_else(tmp_path: Path) -> None:
    outcome = run(Plan(CASES, seed=2), tmp_path)
    print(outcome)
    assert not outcome.faults, outcome
    kinds = {"request", "pdu", "command", "data set"}
    assert set(outcome.kinds) >= {"corpus", "series", "handshake", *kinds, *(f"{kind} over TLS" for kind in kinds)}
    # They came far enough to do harm: into associations, into the spool, and to the decoders.
    assert outcome.answers["accepted"] > CASES / 4
    assert outcome.stored > CASES / 10
    assert outcome.series > CASES / 50


def test_a_receiver_that_a_peer_takes_down_is_found(tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults/report.before").touch()
    outcome = run(Plan(8, seed=2), tmp_path, {VARIABLE: str(tmp_path / "faults")})
    assert any(fault.startswith("the receiver ") and fault.endswith(" died") for fault in outcome.faults), outcome
    assert any("in the log" in fault for fault in outcome.faults), outcome


def test_what_is_lost_hangs_is_not_expected_and_grows_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted/sitecustomize.py").write_text(PLANTED)
    path = os.pathsep.join([str(tmp_path / "planted"), quick_environment()["PYTHONPATH"]])
    outcome = run(Plan(120, seed=2, patience=6), tmp_path, {"PYTHONPATH": path})
    told = "\n".join(outcome.faults)
    for word in ("acknowledged are not in the spool", " hung ", "ended unexpectedly", " grew from "):
        assert word in told, outcome


def test_a_case_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    right = right_series(tmp_path)
    cases = [make_case(7, number, right) for number in range(300)]
    assert cases == [make_case(7, number, right) for number in range(300)]
    assert len({repr(case) for case in cases}) > 290
    assert cases[:50] != [make_case(8, number, right) for number in range(50)]
