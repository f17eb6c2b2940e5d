"""What a run's folder remembers of its own work: when it was begun, how often each step was, and whether it shall end.

A start is counted before the step does anything, and taken back when the step ends in order: what remains was left by
steps that took their worker down. A worker that was killed counts as one that the step took down, since nobody can
tell the two apart.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from m3node.durable import sync_folder, write_once
from m3node.rejection import Reason, Rejection

STARTS = "starts"
BEGUN = "begun"
CANCEL = "cancel"

NOTES = (STARTS, BEGUN, CANCEL)
"""Files that are of no use once ``run.json`` is there."""


def begin(folder: Path, step: str, limit: int) -> Rejection | None:
    """Count a start of a step; return the reason to set the run aside when there were too many.

    Parameters
    ----------
    folder : Path
        The run's folder.
    step : str
        Name of the step.
    limit : int
        Starts without an end after which the step is not begun again.
    """
    starts = _starts(folder)
    if starts.count(step) >= limit:
        times = f"{limit} times" if limit > 1 else "once"
        message = (
            f"the worker died {times} in step {step} of {folder.name}; the run is set aside, the input is kept: "
            "look at memory and the log of that time, then requeue it"
        )
        return Rejection(Reason.FAILED, message, folder.name)
    with (folder / STARTS).open("a", encoding="ascii") as stream:
        stream.write(f"{step}\n")
        stream.flush()
        os.fsync(stream.fileno())  # a step may take the whole machine down
    sync_folder(folder)
    return None


def end(folder: Path, step: str) -> None:
    """Forget all starts of a step that came to its end."""
    _keep(folder, [start for start in _starts(folder) if start != step])


def take_back(folder: Path, step: str) -> None:
    """Forget the last start of a step that was left in order, before its end."""
    starts = _starts(folder)
    if step in starts:
        del starts[len(starts) - 1 - starts[::-1].index(step)]
        _keep(folder, starts)


def mark_begun(folder: Path) -> None:
    """Write down that the run is under way; the first time stays."""
    write_once(folder / BEGUN, f"{json.dumps({'at': time.time()})}\n".encode("ascii"))


def begun_at(folder: Path) -> float:
    """Return when the run was begun first, seconds since the epoch; 0 when nobody wrote it down."""
    try:
        return float(json.loads((folder / BEGUN).read_bytes())["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def ask_to_cancel(folder: Path, reason: str) -> None:
    """Ask whoever works on the run to end it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_once(folder / CANCEL, reason.encode())


def cancel_reason(folder: Path) -> str:
    """Return why the run shall end; empty when nobody wants that."""
    try:
        return (folder / CANCEL).read_text(encoding="utf-8") or "cancelled"
    except OSError:
        return ""


def forget(folder: Path) -> None:
    """Remove all of it: the run has ended, or begins anew."""
    for name in NOTES:
        (folder / name).unlink(missing_ok=True)


def _starts(folder: Path) -> list[str]:
    try:
        return (folder / STARTS).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return []


def _keep(folder: Path, starts: list[str]) -> None:
    path = folder / STARTS
    if not starts:
        path.unlink(missing_ok=True)  # needs no room, and most runs have nothing else to remember
        return
    temporary = path.with_name(f".{STARTS}.part")
    temporary.write_text("".join(f"{start}\n" for start in starts), encoding="ascii")
    temporary.replace(path)
