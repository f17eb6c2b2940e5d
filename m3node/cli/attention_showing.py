"""What ``m3node attention run`` and ``ask`` print, and the picture that they open."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from m3node.attention.output.rows import Row
    from m3node.attention.output.setup import Setup
    from m3node.attention.running import Run

RUN_SCHEMA = "m3node.attention-run/1"
ASK_SCHEMA = "m3node.attention-ask/1"
_ERRORS_SHOWN = 20


def run_json(done: Run, setup: Setup, out: Path) -> dict[str, Any]:
    """Return what ``run --json`` prints."""
    judged, right = _judged(done)
    return {
        "schema": RUN_SCHEMA,
        "notice": _notice(setup),
        "out": str(out),
        "model": setup.model,
        "questions": len(done.rows),
        "failed": done.failed,
        "kept": done.kept,
        "done_anew": dict(done.anew),
        "judged": judged,
        "right": right,
        "modes": dict(Counter(row.mode for row in done.rows if row.mode)),
        "degenerate": sum(bool(row.degenerate) for row in done.rows),
        "errors": [{"line": row.line, "key": row.key, "error": row.error} for row in done.rows if row.error],
    }


def ask_json(row: Row, setup: Setup, out: Path) -> dict[str, Any]:
    """Return what ``ask --json`` prints."""
    return {"schema": ASK_SCHEMA, "notice": _notice(setup), "out": str(out), **row.as_json()}


def print_run(done: Run, setup: Setup, out: Path) -> None:
    """Print what came of a run, and where to look."""
    from m3node.attention.output.folder import REPORT, TABLE  # noqa: PLC0415 - keeps --help quick

    console = Console(highlight=False, soft_wrap=True)
    answered = len(done.rows) - done.failed
    console.print(f"{answered} of {len(done.rows)} questions answered by {setup.label}", markup=False)
    judged, right = _judged(done)
    if judged:
        console.print(f"{right} of {judged} answers are right ({right / judged:.0%})")
    modes = Counter(row.mode for row in done.rows if row.mode)
    if modes:
        console.print("grids by " + ", ".join(f"{mode}: {count}" for mode, count in modes.most_common()))
    if degenerate := sum(bool(row.degenerate) for row in done.rows):
        console.print(f"{degenerate} grids say nothing in any mode (column degenerate)")
    if done.kept:
        console.print(f"{done.kept} were done already and are as they were")
    for why, count in done.anew.most_common():
        console.print(f"{count} done anew: {why}", markup=False)
    failed = [row for row in done.rows if row.error]
    for row in failed[:_ERRORS_SHOWN]:
        console.print(plain(f"line {row.line}: {row.error}"), markup=False)
    if len(failed) > _ERRORS_SHOWN:
        console.print(f"… and {len(failed) - _ERRORS_SHOWN} more errors")
    for name in (TABLE, REPORT):
        console.print(str(out / name), markup=False)
    console.print(_notice(setup), markup=False)


def print_row(row: Row, setup: Setup, out: Path) -> None:
    """Print one answer with its numbers, the grid where the terminal has colours, and where the pictures are."""
    from m3node.attention.output.visualization import metric_lines  # noqa: PLC0415 - keeps --help quick

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(plain(row.answer) or "(nothing)", style="bold"))
    if console.is_terminal and console.color_system in {"256", "truecolor"}:
        console.print(_blocks(out / row.grid_file))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    lines = [] if row.metrics is None else metric_lines(row.metrics)
    if row.image_share is not None:
        lines.append(("attention to the image at all", f"{row.image_share * 100:.1f} %"))
    lines.append(("mode", row.mode + (", degenerate: it says nothing" if row.degenerate else "")))
    lines += [("passed over", why) for why in row.passed_over]
    lines += [("medical terms", ", ".join(row.terms))] if row.terms else []
    lines.append(("model", setup.label))
    for name, value in lines:
        table.add_row(Text(name, style="dim"), Text(plain(value)))
    console.print(table)
    console.print(str(out / row.visualization_file), markup=False)
    console.print(_notice(setup), markup=False)


def plain(text: str) -> str:
    """Leave nothing in a text that would steer a terminal: tables, files and models may hold anything."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)


def has_viewer() -> bool:
    """Whether there is a desktop to open a picture on."""
    return bool(_viewer())


def open_picture(path: Path) -> None:
    """Open a picture with the desktop's viewer; where there is none, say so."""
    viewer = _viewer()
    if not viewer:
        print("m3node: there is no desktop here to open the picture on", file=sys.stderr)
        return
    # Not waited for: the viewer may stay open as long as it is looked at.
    subprocess.Popen(
        [*viewer, str(path.resolve())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _viewer() -> tuple[str, ...]:
    if sys.platform == "darwin":
        name = "open"
    else:
        name = "xdg-open" if os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") else ""
    found = shutil.which(name) if name else None
    return (found,) if found else ()


def _blocks(path: Path) -> Text:
    """The grid in coloured blocks, two letters a cell."""
    import numpy as np  # noqa: PLC0415 - keeps --help quick

    from m3node.attention.output.scene import peak_of  # noqa: PLC0415
    from m3node.drawing.heat import SCALE  # noqa: PLC0415

    grid = np.load(path, allow_pickle=False)
    steps = np.rint(grid / peak_of(grid) * 255).astype(int)
    drawn = Text()
    for line in steps:
        for step in line:
            red, green, blue = SCALE[step]
            drawn.append("  ", style=f"on rgb({red},{green},{blue})")
        drawn.append("\n")
    return drawn


def _judged(done: Run) -> tuple[int, int]:
    """Answers whose truth is known, and how many of them are right."""
    judged = [row for row in done.rows if row.correct is not None]
    return len(judged), sum(row.correct is True for row in judged)


def _notice(setup: Setup) -> str:
    return " ".join((ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE, *setup.marks))
