"""Log lines are plain, in UTC, and without a patient."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom.config
import pytest

from m3node.intake.receive.repeats import RepeatedLines
from m3node.jobs.engine.setup import quieten
from m3node.logs import LONGEST, TALKERS, about_nothing, correlated, describe, set_up, to_terminal
from m3node.settings import LogSettings
from small_disk import small_disk


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    hooks = sys.excepthook, threading.excepthook
    with warnings.catch_warnings():
        yield
    root.setLevel(level)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook = hooks
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_line_says_when_in_utc_how_grave_and_who(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "keeper")
    logging.getLogger("m3node.somewhere").warning("series %s waits", "1.2.3")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING keeper: series 1\.2\.3 waits\n", capsys.readouterr().err
    )


def test_the_time_is_in_utc_wherever_the_machine_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    set_up(LogSettings(), "keeper")
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


@pytest.mark.parametrize("name", [*TALKERS, "pynetdicom.assoc", "pydicom.pixels", "python_multipart.multipart"])
def test_the_libraries_that_quote_stay_silent_even_at_debug_level(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(LogSettings(level="DEBUG", folder=tmp_path), "receiver")
    logging.getLogger(name).critical("(0010,0010) PATIENT^NAME")
    assert capsys.readouterr().err == ""
    assert (tmp_path / "receiver.log").read_text() == ""


def test_warnings_which_quote_the_value_they_are_about_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR PN: PATIENT^NAME", UserWarning, stacklevel=1)
        assert len(shown) == 1
        set_up(LogSettings(), "receiver")
        warnings.warn("Invalid value for VR PN: PATIENT^NAME", UserWarning, stacklevel=1)
    assert len(shown) == 1


def test_a_library_that_sets_its_own_level_later_stays_silent(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "keeper")
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


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def failing(words: str) -> None:
    raise ValueError(words)


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_named_and_not_quoted(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(format=form), "keeper")
    try:
        failing("PATIENT^NAME")
    except ValueError:
        logging.getLogger("somebody.else").exception("a step failed")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a step failed" in said
    assert "ValueError at " in said
    assert "PATIENT" not in said


def test_a_traceback_that_the_engine_puts_into_its_words_becomes_the_name_of_the_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up(LogSettings(), "worker-0")
    log = logging.getLogger("dbos")
    before = list(log.filters)
    quieten()
    try:
        failing("PATIENT^NAME")
    except ValueError:
        log.warning(f"Exception polling schedules: {traceback.format_exc()}")
    finally:
        log.filters[:] = before
    said = capsys.readouterr().err
    assert said.endswith("worker-0: Exception polling schedules (ValueError)\n")


def test_what_nobody_caught_is_named_and_not_quoted_in_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "keeper")
    thread = threading.Thread(target=failing, args=("PATIENT^NAME",))
    thread.start()
    thread.join()
    try:
        failing("PATIENT^NAME")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.count("an unexpected error was not caught: ValueError at ") == 2
    assert "PATIENT" not in said


def test_a_title_with_a_line_end_begins_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "receiver")
    logging.getLogger("m3node").warning(
        "association from %s", "A\n2026-01-01T00:00:00.000Z INFO keeper: \x1b[2Jwell\u2028"
    )
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith(r"association from A\n2026-01-01T00:00:00.000Z INFO keeper: \x1b[2Jwell\u2028" + "\n")


def test_a_message_is_cut_where_it_would_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "receiver")
    logging.getLogger("m3node").warning("%s", "x" * (LONGEST + 3))
    assert capsys.readouterr().err.endswith("x… (and 3 characters more)\n")


def test_a_line_says_what_it_was_about_as_long_as_that_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "worker-0")
    log = logging.getLogger("m3node")
    with correlated(run="1.2.g1", study="1.1", series=""):
        with correlated(destination="pacs"):
            log.info("inside")
        log.info("between")
    log.info("outside")
    assert [line.partition("worker-0: ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "inside [run=1.2.g1 study=1.1 destination=pacs]",
        "between [run=1.2.g1 study=1.1]",
        "outside",
    ]


def test_a_line_for_people_does_not_repeat_what_it_has_said_but_run_and_study_are_always_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("m3node")
    with correlated(run="1.2.3.g1", study="1.1", series="1.2.3"):
        set_up(LogSettings(), "worker-0")
        log.info("run 1.2.3.g1 begins")
        with correlated(destination="pacs"):
            log.info("pacs: stored")
            log.info("pacs-2: stored")
        set_up(LogSettings(format="json"), "worker-0")
        log.info("run 1.2.3.g1 begins")
    set_up(LogSettings(), "keeper")
    with correlated(study="1.1", series="1.2.3"):
        log.info("series 1.2.3 waits")
        log.info("series 1.2.3.4 waits, not 91.2.3")
    *lines, as_json, told, another = capsys.readouterr().err.splitlines()
    assert [line.partition("worker-0: ")[2] for line in lines] == [
        "run 1.2.3.g1 begins [run=1.2.3.g1 study=1.1]",
        "pacs: stored [run=1.2.3.g1 study=1.1]",
        "pacs-2: stored [run=1.2.3.g1 study=1.1 destination=pacs]",
    ]
    assert json.loads(as_json)["ids"] == {"run": "1.2.3.g1", "study": "1.1", "series": "1.2.3"}
    assert told.endswith("series 1.2.3 waits [study=1.1]")
    assert another.endswith(" [study=1.1 series=1.2.3]")


def test_what_is_said_beside_the_work_is_not_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(), "receiver 0")
    log = logging.getLogger("m3node")
    with correlated(association="7"):
        with about_nothing():
            log.info("others")
        log.info("ours: 7 new")
    assert [line.partition("0: ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "others",
        "ours: 7 new [association=7]",
    ]


def test_how_often_others_came_again_is_not_said_of_the_one_who_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    set_up(LogSettings(), "receiver 0")
    lines = RepeatedLines(logging.getLogger("m3node"), times=1, clock=lambda: now[0])
    for number in ("1", "2"):
        with correlated(association=number):
            lines.say(logging.INFO, "refused")
    now[0] = 60.0
    with correlated(association="3"):
        lines.say(logging.INFO, "another")
    assert [line.partition("0: ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "refused [association=1]",
        "refused: and 1 more within a minute",
        "another [association=3]",
    ]


def test_json_has_an_object_a_line_with_fields_to_search_by(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogSettings(format="json"), "worker-0")
    with correlated(run="1.2.g1"):
        logging.getLogger("m3node.jobs").error("two\nlines of %s", "words")
    line = json.loads(capsys.readouterr().err)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "ERROR",
        "role": "worker-0",
        "logger": "m3node.jobs",
        "message": "two\nlines of words",
        "ids": {"run": "1.2.g1"},
    }


def test_a_file_gets_the_same_lines_and_is_put_aside_when_it_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    set_up(LogSettings(folder=folder, max_mb=0.001, files=3), "receiver 1")
    for number in range(60):
        logging.getLogger("m3node").info("line %03d %s", number, "x" * 60)
    files = [folder / f"receiver-1.log{end}" for end in (".3", ".2", ".1", "")]
    assert sorted(folder.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 1000 for file in files)
    kept = [line for file in files for line in lines_of(file)]
    assert kept == capsys.readouterr().err.splitlines()[-len(kept) :]


def test_a_file_goes_on_where_the_process_before_ended(tmp_path: Path) -> None:
    for word in ("first", "second"):
        set_up(LogSettings(folder=tmp_path), "keeper")
        logging.getLogger("m3node").info(word)
    assert [line.rpartition(" ")[2] for line in lines_of(tmp_path / "keeper.log")] == ["first", "second"]


def test_a_file_that_somebody_removes_to_make_room_is_let_go_of_and_begun_anew(tmp_path: Path) -> None:
    set_up(LogSettings(folder=tmp_path), "keeper")
    log, path = logging.getLogger("m3node"), tmp_path / "keeper.log"
    log.info("before")
    path.unlink()
    log.info("after")
    log.info("and on")
    assert [line.rpartition(": ")[2] for line in lines_of(path)] == ["after", "and on"]


def test_a_folder_that_cannot_be_written_is_said_and_the_process_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    set_up(LogSettings(folder=tmp_path / "file" / "logs"), "keeper")
    logging.getLogger("m3node").info("it goes on")
    first, second = capsys.readouterr().err.splitlines()
    assert "cannot be written: Not a directory; logging here only" in first
    assert second.endswith("it goes on")


def test_a_full_disk_costs_lines_of_the_file_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        set_up(LogSettings(folder=disk.folder), "keeper")
        log = logging.getLogger("m3node")
        log.info("before")
        disk.fill()
        for number in range(200):
            log.info("%d %s", number, "x" * 100)
        disk.empty()
        log.info("after")
        kept = lines_of(disk.folder / "keeper.log")
        said = capsys.readouterr().err.splitlines()
        logging.getLogger().handlers[-1].close()
    assert kept[0].endswith("before")
    assert kept[-1].endswith(" INFO    keeper: after")
    assert len(kept) < 200
    assert sum("keeper.log cannot be written: No space left on device" in line for line in said) == 1
    assert sum(" keeper: " in line for line in said) == 202


def test_a_line_that_was_cut_short_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(LogSettings(folder=tmp_path), "keeper")
    log, write = logging.getLogger("m3node"), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, line: write(handle, line[:10]))
        log.info("lost")
    log.info("whole")
    log.info("and on")
    first, *others = lines_of(tmp_path / "keeper.log")
    assert len(first) == 10
    assert [line.rpartition(": ")[2] for line in others] == ["whole", "and on"]


def test_a_command_says_its_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    to_terminal("m3node")
    logging.getLogger("m3node").info("quiet")
    logging.getLogger("m3node").warning("heard")
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()] == ["heard"]
