"""The core is installed and runs without the extra ``medgemma``."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import m3node

EXTRA = ("m3node.gemma", "m3node.detectors.medgemma", "m3node.evaluation.test_model", "m3node.attention")
"""Packages that may import what only the extra brings."""

BLOCK = """
import sys

class Absent:
    names = {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python that has none of the extra's packages."""
    command = [sys.executable, "-c", BLOCK + script, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def core_modules() -> list[str]:
    root = Path(m3node.__file__).parent
    found = [info.name for info in pkgutil.walk_packages([str(root)], "m3node.") if not of_the_extra(info.name)]
    # The one would run the command, the others are run by alembic only.
    return [name for name in found if not name.endswith("__main__") and ".migrations." not in name]


def of_the_extra(name: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in EXTRA)


def test_every_module_of_the_core_is_imported_without_the_extras_packages() -> None:
    names = core_modules()
    assert len(names) > 150
    told = run("import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)", *names)
    assert told.stderr == ""
    assert told.returncode == 0


@pytest.mark.parametrize(
    "words", [("run", "--help"), ("config", "check"), ("model", "check", "--help"), ("attention", "run", "--help")]
)
def test_commands_work_without_it(words: tuple[str, ...]) -> None:
    assert run("from m3node.cli import main\nsys.exit(main())", *words).returncode == 0


def test_the_model_check_says_what_to_install() -> None:
    told = run("from m3node.cli import main\nsys.exit(main())", "model", "check", "--model", "test")
    assert told.returncode == 2
    assert "this needs the module 'torch', which is not installed" in told.stderr
    assert "pip install 'm3node[medgemma]'" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_attention_analysis_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("dicom_id,study_id,question,answer\na,b,c,d\n", encoding="utf-8")
    words = ("attention", "run", str(tmp_path / "table.csv"), "--images", str(tmp_path), "--out", str(tmp_path / "out"))
    told = run("from m3node.cli import main\nsys.exit(main())", *words)
    assert told.returncode == 2
    assert "pip install 'm3node[attention]'" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_with_the_detector_says_what_to_install(tmp_path: Path) -> None:
    words = ("run", str(tmp_path), "--out", str(tmp_path / "out"), "--detector", "medgemma")
    told = run("from m3node.cli import main\nsys.exit(main())", *words)
    assert told.returncode == 2
    assert "pip install 'm3node[medgemma]'" in told.stderr
    assert "Traceback" not in told.stderr
