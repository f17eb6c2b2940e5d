"""``m3node attention robustness`` as it is called: what it prints and leaves, and its exit status."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from attention_cases import write_cases
from m3node.attention.images.image import InputImage
from m3node.attention.output.report.page import write_report
from m3node.attention.robustness.section import summary_section
from m3node.cli import attention_robustness
from m3node.cli.main import main
from spot_looker import SpotLooker, spot_setup, write_spots

HOSTILE = "Is <script>alert(1)</script> a nodule?"


@pytest.fixture
def spots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, in which `SpotLooker` stands for every model."""
    (tmp_path / "images").mkdir()
    write_spots(tmp_path / "images")
    monkeypatch.setattr(attention_robustness, "make_looker", lambda arguments: (SpotLooker(), spot_setup()))
    return tmp_path


def asked(root: Path, *rows: tuple[str, str], name: str = "questions.csv") -> list[str]:
    """Write a table of image and question, and return the words of the command."""
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("dicom_id", "study_id", "question", "answer"), *((i, "s", q, "no") for i, q in rows)]
        )
    return command_for(root, root / name)


def command_for(root: Path, table: Path) -> list[str]:
    """The words of the command."""
    words = ["attention", "robustness", str(table), "--images", str(root / "images"), "--out", str(root / "out")]
    return [*words, "--perturb", "brightness:90,rotation:10"]


def test_all_done_is_0_and_a_table_says_what_flipped(spots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(spots, ("one", "Is there a nodule?"))) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "1 of 1" in lines["brightness:90"]
    assert "0 of 1" in lines["rotation:10"]
    assert "not for diagnosis" in shown
    assert "test model" in shown


def test_some_failed_is_1_nothing_usable_3(spots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(spots, ("one", "Is there a nodule?"), ("gone", "Is there a nodule?"))) == 1
    assert "failed: s / gone" in capsys.readouterr().out
    assert main([*asked(spots, ("gone", "Is there a nodule?")), "--resume"]) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--perturb", "twist:4"], "no change 'twist'"),
        (["--column", "dicom=id"], "no column is called 'dicom'"),
        (["--images", "nowhere"], "nowhere is not there"),
    ],
)
def test_wrong_usage_is_2_before_the_model_is_loaded(
    spots: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.setattr(attention_robustness, "make_looker", lambda arguments: pytest.fail("the model was loaded"))
    assert main([*asked(spots, ("one", "Is there a nodule?")), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (spots / "out").exists()


def test_a_stopped_run_says_how_to_go_on(
    spots: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(SpotLooker):
        def features(self, image: InputImage) -> torch.Tensor:
            raise KeyboardInterrupt

    monkeypatch.setattr(attention_robustness, "make_looker", lambda arguments: (Stopped(), spot_setup()))
    assert main(asked(spots, ("one", "Is there a nodule?"))) == 130
    assert "--resume goes on" in capsys.readouterr().err


def test_a_terminal_is_not_steered_by_what_the_table_says(spots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spots / "questions.csv").write_text(
        "dicom_id,study_id,question,answer,baseline_question,strategy\n"
        "one,s,Is there a nodule?,no,Is there a nodule?,\n"
        'one,s,"<image>\x1b[2J\nor not?",no,Is there a nodule?,[red]words\x1b[31m\n',
        encoding="utf-8",
    )
    assert main(command_for(spots, spots / "questions.csv")) == 1
    shown = capsys.readouterr().out
    assert "[red]words" in shown
    assert "\x1b" not in shown


def test_json_is_one_object_and_nothing_else(spots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = asked(spots, ("one", "Is there a nodule?"), ("two", "Is there a nodule?"), ("two", "And where?"))
    assert main([*command, "--limit", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "m3node.attention-robustness-summary/1"
    assert told["questions"] == 2
    assert [change["name"] for change in told["changes"]] == ["brightness:90", "rotation:10"]
    assert main([*command, "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["questions"], again["reused"]) == (3, 2)
    assert main([*command, "--limit", "1", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 1


def test_a_run_is_not_mixed_with_another_unasked(spots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = asked(spots, ("one", "Is there a nodule?"))
    assert main(command) == 0
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err


def test_the_reports_section_shows_what_a_table_says_as_text(spots: Path) -> None:
    assert main(asked(spots, ("one", HOSTILE), ("gone", HOSTILE))) == 1
    section = summary_section(spots / "out")
    page = write_report(spot_setup(), [], [], spots / "out", section).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert 'id="robustness"' in page
    assert section is not None
    assert f'src="{section.unsteady[0].picture}"' in page
    assert "1 of 2 changes flip the answer" in page


def test_the_test_model_goes_through_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = write_cases(tmp_path, count=2)
    words = [
        "attention",
        "robustness",
        str(cases.questions),
        "--images",
        str(cases.images),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--model", "test", "--perturb", "noise,crop", "--max-new-tokens", "12", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["is_test_model"] is True
    assert [(change["name"], change["asked"]) for change in told["changes"]] == [
        *(("negation", 2), ("paraphrase", 2)),
        *(("noise:10", 2), ("crop:0.1", 2)),
    ]
    names = sorted(path.name for path in (tmp_path / "out" / "robustness").iterdir())
    keys = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    assert len(keys) == 2
    assert set(names) == {f"{key}{end}" for key in keys for end in (".json", ".png", "_grids.npz")}
