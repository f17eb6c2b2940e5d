"""The watched folder's jobs: each is answered as ``m3node run`` answers its input."""

from __future__ import annotations

import threading
from pathlib import Path

from m3node.intake.folder.watch import FolderWatch, Verdict, watch_folder
from m3node.jobs.answer.failure import failure, transient
from m3node.jobs.inputs.dicom import InputReport, process_input, summary
from m3node.progress import silent
from m3node.rejection import Rejection
from m3node.settings import Settings


def run_watch(settings: Settings, stop: threading.Event) -> None:
    """Serve ``watch.folder`` until ``stop`` is set; the job at hand is finished first."""
    folder, out = settings.watch.folder, settings.watch.out
    if folder is None or out is None:
        return

    def process(source: Path, target: Path) -> Verdict:
        try:
            report = process_input(source, target, settings, silent)
        except Exception as error:
            # One input's failure must not end the watch; a full disk is no input's failure.
            trouble = transient(error)
            if trouble is not None:
                raise trouble from error
            return Verdict(0, {}, (failure(error, target.name),))
        return verdict(report)

    watch = FolderWatch(folder, out, settings.watch.settle_seconds, process)
    watch_folder(watch, folder, settings.watch.settle_seconds, stop)


def verdict(report: InputReport) -> Verdict:
    """Return what is written beside an input that was processed."""
    rejections: tuple[Rejection, ...] = tuple(stack.rejection for stack in report.stacks if stack.rejection)
    return Verdict(report.processed, summary(report), rejections)
