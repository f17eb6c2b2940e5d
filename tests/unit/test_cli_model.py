"""``m3node model check`` says what the model is and what it costs, or what to do to have one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from m3node.cli import main
from m3node.cli.extras import needs_extra
from m3node.cli.model import phantom
from m3node.errors import ConfigError
from m3node.gemma.files import TEST_FOLDER, weights_digest
from m3node.notice import NOT_FOR_CLINICAL_USE


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # For so little work, threads that wait for each other on a busy machine cost a hundred times what they save.
    torch.set_num_threads(1)


def test_the_test_model_is_loaded_asked_and_called_a_test_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", "--model", "test", "--device", "cpu", "--crops", "1"]) == 0
    lines = dict(line.partition(" ")[::2] for line in capsys.readouterr().out.splitlines())
    assert "test model (not MedGemma)" in lines["model"]
    assert lines["weights"].strip() == f"sha256:{weights_digest(TEST_FOLDER)}"
    assert "float32" in lines["device"]
    assert re.search(r"\d [MG]B for the process", lines["memory"])
    assert "median of 1" in lines["a"]
    assert "read, " in lines["answer"]
    assert "means nothing medically" in lines["This"]
    assert NOT_FOR_CLINICAL_USE.split(maxsplit=1)[0] in lines


def test_json_has_the_same_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", "--model", "test", "--device", "cpu", "--crops", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "m3node.model-check/1"
    assert shown["model"]["is_test_model"] is True
    assert shown["device"]["name"] == "cpu"
    assert shown["crops_timed"] == 2
    assert shown["crop_seconds"] > 0
    assert shown["memory"]["process_mb"] > 100
    assert shown["answer"]["read"] is True


def test_an_answer_that_cannot_be_read_is_said_and_is_no_success(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # One token is no answer.
    (tmp_path / "m3node.toml").write_text(
        '[detector.medgemma]\nmodel = "test"\ndevice = "cpu"\nmax_new_tokens = 1\n', encoding="utf-8"
    )
    assert main(["model", "check", "--config", str(tmp_path / "m3node.toml"), "--crops", "1"]) == 1
    assert "could not be read: the answer reached the token limit" in capsys.readouterr().out


def test_the_crop_shows_liver_and_lesions() -> None:
    volume, region = phantom()
    assert volume.geometry.shape == volume.hu.shape
    assert region.parenchyma.count > 10_000
    assert region.envelope.count > region.parenchyma.count


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "/no/such/folder"), "there is no folder /no/such/folder"),
        (("--model", "test", "--profile", "none"), "there is no model profile 'none'"),
        (("--model", "test", "--device", "cuda:42"), "there is no device 'cuda:42' here"),
        (("--model", "test", "--dtype", "int4"), "detector.medgemma.dtype"),
    ],
)
def test_what_cannot_be_is_one_sentence(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_a_broken_install_names_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"pip install --upgrade 'm3node\[medgemma\]'"), needs_extra("medgemma"):
        raise ImportError("undefined symbol")
