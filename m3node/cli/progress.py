"""Shows progress: a bar on a terminal, plain lines otherwise, nothing when the output is for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from m3node.progress import Progress as Report


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Report]:
    """Yield a callable that takes (stage, done, total).

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """
    if quiet:
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Report]:
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(stage: str, done: int, total: int) -> None:
            task = tasks.get(stage)
            # The same stage from its beginning again belongs to the next stack.
            if task is None or (done < progress.tasks[task].completed and progress.tasks[task].finished):
                task = tasks[stage] = progress.add_task(stage, total=total)
            progress.update(task, completed=done, total=total)

        yield report


class _Lines:
    """One line when a stage begins, and one when it ends."""

    def __init__(self) -> None:
        self._open: str | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._open != stage and done < total:
            print(f"{stage} …", file=sys.stderr, flush=True)
            self._open = stage
        if done >= total and self._open == stage:
            print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)
            self._open = None
