"""The flow goes one way: a stage knows the stages before it, never one after it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import m3node

ROOT = Path(m3node.__file__).parent

FLOW = (
    # What everybody may know: no stage of the flow in it.
    {
        "",
        "disk",
        "durable",
        "errors",
        "faults",
        "identity",
        "layout",
        "log_file",
        "logs",
        "notice",
        "process",
        "progress",
        "rejection",
        "settings",
    },
    {"tls"},
    {"audit", "metrics"},
    {"intake"},
    {"imaging"},
    {"drawing"},
    {"liver"},
    {"gemma"},
    {"detectors"},
    {"m3"},
    {"results"},
    {"delivery"},
    {"jobs"},
    {"health"},
    {"web"},
    {"demo"},
    {"cli", "__main__"},
)
"""The packages and modules below ``m3node``, each row allowed to import its own and those above."""

INSIDE = {
    "jobs": ({"locks", "trouble"}, {"answer"}, {"ledger"}, {"engine", "inputs"}, {"keeping"}, {"node"}),
    "attention": ({"questions", "images"}, {"reading"}, {"metrics"}, {"output"}, {"running"}, {"robustness"}),
}
"""The same within a package."""

TOOLS = {
    "evaluation": {"intake", "imaging", "drawing", "liver", "gemma", "detectors", "m3", "results"},
    "attention": {"intake", "imaging", "drawing", "liver", "gemma"},
}
"""Beside the flow: make and judge cases, and look at a model's attention. Only ``demo`` and ``cli`` import them."""


def part_of(module: str) -> str:
    """The first name below ``m3node``: ``m3node.intake.series.header`` lives in ``intake``."""
    return [*module.split("."), ""][1]


def imports() -> Iterator[tuple[str, str]]:
    """Every import between modules of m3node as (importing, imported), function-local and type-only ones too."""
    modules = {name_of(path) for path in ROOT.rglob("*.py")}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                # "from package import name": the name may be a module of its own
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [name if name in modules else str(node.module) for name in whole]
            else:
                continue
            yield from ((name_of(path), name) for name in found if name.split(".")[0] == "m3node")


def name_of(path: Path) -> str:
    parts = ["m3node", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row_of(part: str) -> int:
    return next(number for number, row in enumerate(FLOW) if part in row)


def test_every_part_has_its_place() -> None:
    placed = set().union(*FLOW) | set(TOOLS)
    present = {part_of(name_of(path)) for path in ROOT.rglob("*.py")}
    assert present <= placed


def test_no_stage_imports_a_later_one() -> None:
    backwards = [
        f"{importing} imports {imported}"
        for importing, imported in imports()
        if part_of(importing) not in TOOLS
        and part_of(imported) not in TOOLS
        and row_of(part_of(imported)) > row_of(part_of(importing))
    ]
    assert backwards == []


def inner_row(module: str) -> int | None:
    """Row in `INSIDE` of ``m3node.<package>.<part>`` and what lies below it; None when there is none."""
    _, package, part = [*module.split("."), "", ""][:3]
    return next((number for number, row in enumerate(INSIDE.get(package, ())) if part in row), None)


def test_no_part_of_a_package_imports_a_later_one_of_it() -> None:
    backwards = []
    for importing, imported in imports():
        if part_of(importing) != part_of(imported) or part_of(importing) not in INSIDE:
            continue
        here, there = inner_row(importing), inner_row(imported)
        assert here is not None, f"{importing} has no place"
        if there is None or there > here:
            backwards.append(f"{importing} imports {imported}")
    assert backwards == []


def test_only_demo_and_command_line_know_the_evaluation() -> None:
    wrong = [
        f"{importing} imports {imported}"
        for importing, imported in imports()
        if part_of(imported) in TOOLS and part_of(importing) not in {*TOOLS, "demo", "cli"}
    ]
    assert wrong == []


def test_the_evaluation_knows_types_and_method_but_nothing_that_receives_or_sends() -> None:
    wrong = [
        f"{importing} imports {imported}"
        for importing, imported in imports()
        for tool, allowed in TOOLS.items()
        if part_of(importing) == tool
        and (
            part_of(imported) not in allowed | FLOW[0] | {tool}
            # Cases are DICOM folders, too; how series come in over the network is no business of theirs.
            or imported.startswith(("m3node.intake.receive", "m3node.intake.keeper"))
        )
    ]
    assert wrong == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    packages = {name_of(path) for path in ROOT.rglob("__init__.py")}
    graph: dict[str, set[str]] = {}
    for importing, imported in imports():
        # A package's __init__ re-exports its modules; asking the package for itself is no dependency of a module.
        if imported in packages and importing.startswith(imported):
            continue
        graph.setdefault(importing, set()).add(imported)
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError and names the circle
