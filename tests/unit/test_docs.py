"""What the documents promise is what the code does: tables are compared with the code that they describe."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m3node.cli.config import find_surprises
from m3node.cli.main import build_parser
from m3node.delivery.status import Verdict, judge_status
from m3node.intake.receive import status as receive_status
from m3node.intake.receive.contexts import support_rows
from m3node.layout import DataLayout
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.rejection import Reason
from m3node.results.build import DEFAULT_KINDS
from m3node.settings import Settings, load

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCUMENTS = sorted([README, *ROOT.glob("docs/*.md")])


def cells(document: Path) -> Iterator[tuple[str, ...]]:
    """The rows of a document's tables, headings included."""
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield tuple(cell.strip() for cell in line.strip("|").split("|"))


def test_the_readme_names_every_accepted_sop_class_and_transfer_syntax_and_no_other() -> None:
    shown = [(name, uid.strip("`"), use) for name, uid, use in (row for row in cells(README) if len(row) == 3)]
    shown = [row for row in shown if re.fullmatch(r"[0-9.]+", row[1])]
    assert shown == [(name, uid, use) for _, name, uid, use in support_rows()]


def test_every_reason_is_explained_once() -> None:
    explained = [row[0].strip("`") for row in cells(ROOT / "docs" / "reasons.md") if row[0].startswith("`")]
    assert sorted(explained) == sorted(reason.value for reason in Reason)


def test_the_readme_names_every_command() -> None:
    text = README.read_text(encoding="utf-8")
    actions = build_parser()._subparsers
    assert actions is not None
    commands = [name for group in actions._group_actions for name in group.choices or ()]
    assert [name for name in commands if f"m3node {name}" not in text] == []


def test_the_readmes_settings_connect_it_to_a_pacs(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "m3node.toml").write_text(shown.replace("/var/lib/m3node", str(tmp_path / "data")), encoding="utf-8")
    assert list(find_surprises(load(tmp_path / "m3node.toml"))) == []


def test_the_readme_names_every_file_of_a_run() -> None:
    named = {cell for row in cells(README) if len(row) == 2 for cell in re.findall(r"`([^`]+)`", row[0])}
    written = {kind.file_name for kind in DEFAULT_KINDS} | {
        "findings.json",
        "masks.npz",
        "attention.npz",
        "overlay.png",
    }
    assert named == written


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_a_document_names_exists(document: Path) -> None:
    tree = Settings().model_dump()
    sections = [name for name, value in tree.items() if isinstance(value, dict)]
    named = re.findall(rf"`((?:{'|'.join(sections)})(?:\.[a-z_]+)+)`", document.read_text(encoding="utf-8"))
    # A section, a package and a file may have one name: `liver.find.find_liver` and `results.md` are no settings.
    named = [key for key in named if not key.endswith((".csv", ".gz", ".json", ".md", ".nii"))]
    assert [key for key in named if not is_setting(key, tree) and not resolves(f"m3node.{key}")] == []


def is_setting(key: str, tree: Any) -> bool:
    """Whether a dotted key leads somewhere in the settings."""
    for name in key.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return False
        tree = tree[name]
    return True


def test_the_readme_says_that_it_is_not_for_clinical_use() -> None:
    assert NOT_FOR_CLINICAL_USE.split(".", maxsplit=1)[0].lower() in README.read_text(encoding="utf-8").lower()


def test_the_conformance_document_names_every_status_that_the_receiver_answers() -> None:
    answered = {value for name, value in vars(receive_status).items() if name.isupper() and isinstance(value, int)}
    named = [row[0].strip("`") for row in cells(ROOT / "docs" / "conformance.md")]
    assert {int(cell, 16) for cell in named if re.fullmatch(r"0x[0-9A-F]{4}", cell)} == answered


def test_the_conformance_document_says_what_each_answer_does_to_an_object_that_is_sent() -> None:
    rows = list(cells(ROOT / "docs" / "conformance.md"))
    first = rows.index(("answer", "what happens")) + 1
    said = {
        int(code.replace("x", "0"), 16): verdict
        for verdict, (codes, _) in zip(Verdict, rows[first : first + len(Verdict)], strict=True)
        for code in re.findall(r"0x([0-9A-Fx]{4})", codes)
    }
    assert set(said.values()) == set(Verdict)
    assert {code: judge_status(code)[0] for code in said} == said


def test_every_function_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    flow = text[text.index("| from | by | to |") : text.index("## Where each thing lives")]
    dotted = [name for name in re.findall(r"`([a-z0-9_]+(?:\.[A-Za-z0-9_]+)+)`", flow) if not name.startswith("m3node")]
    assert len(dotted) > 10
    assert [name for name in dotted if not resolves(f"m3node.{name}")] == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    named = re.findall(r"`((?:m3node|tests|configs|benchmarks)/[A-Za-z0-9_./]+)`", document.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_names_every_folder_of_the_data_layout() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = [name for name, value in vars(DataLayout).items() if isinstance(value, property)]
    assert "spool" in folders
    assert [name for name in folders if f"{name}/" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []
