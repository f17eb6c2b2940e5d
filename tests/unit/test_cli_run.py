"""What ``m3node run`` and ``demo`` say when they cannot write, and of files with odd names."""

from __future__ import annotations

from pathlib import Path

import pytest

from m3node.cli import main


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
