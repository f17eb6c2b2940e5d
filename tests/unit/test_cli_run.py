"""What ``m3node run`` and ``demo`` say when they cannot write, and of files with odd names."""

from __future__ import annotations

from pathlib import Path

import pytest

from m3node.cli import main
from m3node.settings import Settings


@pytest.mark.parametrize("command", ["run", "demo"])
@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_folder_that_cannot_be_made_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, out: str
) -> None:
    (tmp_path / "file").write_text("x")
    given = [str(tmp_path / "file")] if command == "run" else []
    assert main([command, *given, "--out", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err.startswith(f"m3node: --out: cannot make the folder {tmp_path / out}: ")


def test_a_disk_that_fails_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out/findings.json")

    monkeypatch.setattr("m3node.jobs.inputs.dicom.process_input", full)
    assert main(["run", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "m3node: No space left on device: out/findings.json"


def test_a_name_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "in" / "scan[" / "bold] [red]x"
    odd.parent.mkdir(parents=True)
    odd.write_text("no DICOM")
    assert main(["run", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 3
    assert "scan[/bold] [red]x is not a DICOM file [not-dicom]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ([], ("contrast", "google/medgemma-1.5-4b-it")),
        (["--model", "test"], ("medgemma", "test")),
        (["--model", "/models/own", "--detector", "medgemma"], ("medgemma", "/models/own")),
        (["--detector", "medgemma"], ("medgemma", "google/medgemma-1.5-4b-it")),
    ],
)
def test_a_model_chooses_the_detector_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], chosen: tuple[str, str]
) -> None:
    used: list[Settings] = []

    def noted(_input: Path, _out: Path, settings: Settings, _progress: object) -> None:
        used.append(settings)
        raise OSError(28, "enough seen", "")

    monkeypatch.setattr("m3node.jobs.inputs.dicom.process_input", noted)
    main(["run", str(tmp_path), "--out", str(tmp_path / "out"), *flags])
    (settings,) = used
    assert (settings.detector.name, settings.detector.medgemma.model) == chosen


def test_a_model_for_a_detector_that_has_none_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["run", str(tmp_path), "--out", str(tmp_path / "out"), "--model", "test", "--detector", "contrast"]) == 2
    )
    assert "--model goes with the detector medgemma" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "shown"), [([], False), (["--attention-map"], True)])
def test_the_attention_map_is_built_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], shown: bool
) -> None:
    used: list[Settings] = []

    def noted(_input: Path, _out: Path, settings: Settings, _progress: object) -> None:
        used.append(settings)
        raise OSError(28, "enough seen", "")

    monkeypatch.setattr("m3node.jobs.inputs.dicom.process_input", noted)
    main(["run", str(tmp_path), "--out", str(tmp_path / "out"), *flags])
    assert [settings.results.attention_map for settings in used] == [shown]
