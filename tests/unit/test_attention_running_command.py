"""``m3node attention run`` and ``ask``: what they print, open and leave, and their exit status."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3node.attention.images.image import InputImage
from m3node.cli import attention, attention_showing
from m3node.cli.main import main
from m3node.notice import ATTENTION_NOTICE
from spot_looker import SpotLooker, spot_setup, write_spots

ASKED = "Is there a nodule?"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, in which `SpotLooker` stands for every model."""
    (tmp_path / "images").mkdir()
    write_spots(tmp_path / "images")
    monkeypatch.setattr(attention, "make_looker", lambda arguments: (SpotLooker(), spot_setup()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def words(root: Path, *rows: tuple[str, str], image: str = "dicom_id") -> list[str]:
    """Write a table of image and question, and return the words of the command."""
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([(image, "study_id", "question", "answer"), *((i, "s", q, "no") for i, q in rows)])
    return [
        *("attention", "run", str(root / "table.csv")),
        *("--images", str(root / "images"), "--out", str(root / "out")),
    ]


def test_all_answered_is_0_and_says_where_to_look(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(root, ("one", ASKED), ("two", ASKED))) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 questions answered by spots (a test model)" in shown
    assert "1 of 2 answers are right (50%)" in shown
    assert "grids by raw: 2" in shown
    assert ATTENTION_NOTICE in shown
    for name in ("evaluation_results.csv", "report.html"):
        assert str(root / "out" / name) in shown
        assert (root / "out" / name).is_file()


def test_some_failed_is_1_none_answered_3(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(root, ("one", ASKED), ("gone", ASKED))) == 1
    assert "line 3: no file below images is called gone" in capsys.readouterr().out
    (root / "out").rename(root / "before")
    assert main(words(root, ("gone", ASKED))) == 3
    assert (root / "out" / "report.html").is_file()


def test_json_is_one_object_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*words(root, ("one", ASKED), ("two", ASKED), ("gone", ASKED), image="picture"), "--json"]
    command += ["--column", "dicom_id=picture"]
    assert main([*command, "--limit", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 1
    assert main([*command, "--resume"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "m3node.attention-run/1"
    assert (told["questions"], told["failed"], told["kept"]) == (3, 1, 1)
    assert (told["judged"], told["right"], told["modes"], told["degenerate"]) == (2, 1, {"raw": 2}, 0)
    assert [(one["line"], "gone" in one["error"]) for one in told["errors"]] == [(4, True)]
    assert told["model"]["is_test_model"] is True


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--column", "dicom=id"], "no column is called 'dicom'"),
        (["--column", "question=text"], "has no column 'text'"),
        (["--images", "nowhere"], "nowhere is not there"),
        (["--out", "{root}/images/out"], "lies in the folder of images"),
        (["--out", "{root}/table.csv"], "cannot make the folder"),
    ],
)
def test_wrong_usage_is_2_before_the_model_is_loaded(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], says: str
) -> None:
    monkeypatch.setattr(attention, "make_looker", lambda arguments: pytest.fail("the model was loaded"))
    assert main([*words(root, ("one", ASKED)), *(word.format(root=root) for word in more)]) == 2
    assert says in capsys.readouterr().err
    assert not (root / "out").exists()
    assert not (root / "images" / "out").exists()


@pytest.mark.parametrize("limit", ["0", "-1", "x"])
def test_a_limit_is_a_number_from_1(root: Path, limit: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words(root, ("one", ASKED)), "--limit", limit])
    assert ended.value.code == 2


def test_a_stopped_run_says_how_to_go_on(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(SpotLooker):
        def features(self, image: InputImage) -> torch.Tensor:
            raise KeyboardInterrupt

    monkeypatch.setattr(attention, "make_looker", lambda arguments: (Stopped(), spot_setup()))
    assert main(words(root, ("one", ASKED))) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert (root / "out" / "evaluation_results.csv").read_text(encoding="utf-8").startswith("key,line,")


def test_a_terminal_is_not_steered_by_what_others_wrote(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(root, ("\x1b[2J[red]gone", ASKED), ("one", ASKED)))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]gone" in shown


# One question.


def ask(root: Path, *more: str, question: str = ASKED) -> list[str]:
    return ["attention", "ask", str(root / "images" / "one.png"), question, *more]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was started to open a picture; without a desktop."""
    started: list[list[str]] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(attention_showing.sys, "platform", "linux")
    monkeypatch.setattr(attention_showing.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(attention_showing.subprocess, "Popen", lambda command, **more: started.append(command))
    return started


def test_one_question_shows_its_numbers_and_where_its_picture_is(
    root: Path, capsys: pytest.CaptureFixture[str], opened: list[list[str]]
) -> None:
    assert main(ask(root, "--out", str(root / "one"))) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("No.")
    for words_ in ("entropy", "inside the body", "attention to the image at all", "raw", "spots (a test model)"):
        assert words_ in shown
    assert ATTENTION_NOTICE in shown
    (picture,) = (root / "one" / "visualizations").iterdir()
    assert str(picture) in shown
    assert opened == []


def test_the_picture_is_opened_where_there_is_a_desktop(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    opened: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ("--out", str(root / "one"))
    assert main(ask(root, *out, "--open")) == 0
    assert "no desktop" in capsys.readouterr().err
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(ask(root, *out)) == 0, "no terminal asked"
    assert main(ask(root, *out, "--no-open")) == 0
    assert main(ask(root, *out, "--json")) == 0
    assert opened == []
    assert main(ask(root, *out, "--open")) == 0
    (picture,) = (root / "one" / "visualizations").iterdir()
    assert opened == [["/bin/xdg-open", str(picture)]]


def test_one_question_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ask(root, "--json")) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["mode"], told["error"]) == ("No.", "raw", "")
    grid = np.load(Path(told["out"]) / told["grid_file"])
    assert told["metrics"]["focus"] == pytest.approx(float(grid.max()))


def test_what_cannot_be_asked_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(root / "one"))
    assert main(ask(root, *out, question=" \n")) == 2
    assert "QUESTION is empty" in capsys.readouterr().err
    assert main(["attention", "ask", str(root / "gone.png"), ASKED, *out]) == 2
    assert "there is no file" in capsys.readouterr().err
    (root / "images" / "one.png").write_text("no picture")
    assert main(ask(root, *out)) == 1
    told = capsys.readouterr()
    assert "one.png" in told.err
    assert told.out == ""


def test_bytes_that_are_no_text_are_asked_as_question_marks(root: Path) -> None:
    assert main(ask(root, "--out", str(root / "one"), question="Is \udcff there?")) == 0
