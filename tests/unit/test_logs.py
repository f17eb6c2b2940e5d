"""Log lines are plain, in UTC, and without a patient."""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator

import pydicom.config
import pytest

from m3node.logs import TALKERS, describe, set_up


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with warnings.catch_warnings():
        yield
    root.setLevel(level)
    root.handlers[:] = handlers
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_line_says_when_in_utc_how_grave_and_who(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "keeper")
    logging.getLogger("m3node.somewhere").warning("series %s waits", "1.2.3")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING keeper: series 1\.2\.3 waits\n", capsys.readouterr().err
    )


def test_the_time_is_in_utc_wherever_the_machine_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    set_up("INFO", "keeper")
    epoch = {
        "name": "m3node",
        "msg": "then",
        "levelno": logging.INFO,
        "levelname": "INFO",
        "created": 0.0,
        "msecs": 0.0,
    }
    logging.getLogger().handle(logging.makeLogRecord(epoch))
    monkeypatch.undo()
    time.tzset()
    assert capsys.readouterr().err.startswith("1970-01-01T00:00:00.000Z")


@pytest.mark.parametrize("name", [*TALKERS, "pynetdicom.assoc", "pydicom.pixels"])
def test_the_dicom_libraries_stay_silent_even_at_debug_level(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up("DEBUG", "receiver")
    logging.getLogger(name).critical("(0010,0010) PATIENT^NAME")
    assert capsys.readouterr().err == ""


def test_warnings_which_quote_the_value_they_are_about_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR PN: PATIENT^NAME", UserWarning, stacklevel=1)
        assert len(shown) == 1
        set_up("INFO", "receiver")
        warnings.warn("Invalid value for VR PN: PATIENT^NAME", UserWarning, stacklevel=1)
    assert len(shown) == 1


def test_a_library_that_sets_its_own_level_later_stays_silent(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", "keeper")
    pydicom.config.debug(debug_on=False, default_handler=False)  # what its import does: it sets WARNING
    logging.getLogger("pydicom").warning("Unknown encoding 'DOE^JANE'")
    logging.getLogger("pydicom.pixels").error("DOE^JANE")
    assert capsys.readouterr().err == ""


def test_an_unexpected_error_is_described_without_its_words() -> None:
    try:
        int("PATIENT^NAME")
    except ValueError as error:
        described = describe(error)
    assert re.fullmatch(r"ValueError at unit/test_logs\.py:\d+", described)
