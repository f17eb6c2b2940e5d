"""The story of the demonstration: a series goes to the node by C-STORE, and what it finds comes back to an archive."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.send import find_sendable, send
from m3node.demo.archive import Archive, Kept
from m3node.demo.comparison import Comparison, compare
from m3node.demo.node import SCANNER, DemoError, Node
from m3node.demo.returned import ReportedLesion, read_lesions, read_masks
from m3node.evaluation.ct_writer import write_ct_series
from m3node.evaluation.phantom import Phantom, abdomen_phantom
from m3node.jobs.answer.record import RunRecord, read_record
from m3node.layout import DataLayout
from m3node.progress import Progress
from m3node.results.findings import Outcome
from m3node.results.store import load_findings

WAIT_SECONDS = 900.0
"""Results that take longer are not waited for."""

UNUSED_SECONDS = 20.0
"""A series that has no manifest and no recorded reason after so long gets none (our own objects, for example)."""


@dataclass(frozen=True, slots=True)
class ReturnedObject:
    """A file of the archive, and its SOP class in words."""

    sop_class: str
    path: Path


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one stack.

    Attributes
    ----------
    label : str
        ``<SeriesInstanceUID>[.stack]``.
    outcome : str
        `m3node.results.findings.Outcome` in words.
    lesions : tuple of ReportedLesion
        As the archive's objects state them.
    objects : tuple of ReturnedObject
        What the archive keeps of it.
    picture : Path or None
        Key slices with outline and boxes.
    reason : str
        Why the stack was not used, or its objects were not built; empty otherwise.
    """

    label: str
    outcome: str
    lesions: tuple[ReportedLesion, ...]
    objects: tuple[ReturnedObject, ...]
    picture: Path | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The end of the story.

    Attributes
    ----------
    sent, not_sent : int
        Objects that the node took, and did not take.
    answers : tuple of Answer
        One a stack.
    comparison : Comparison or None
        Planted against found; None for a series whose truth nobody knows, or without an answer.
    seconds : float
        From the first to the last.
    """

    sent: int
    not_sent: int
    answers: tuple[Answer, ...]
    comparison: Comparison | None
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether results came back; for a phantom, also whether they are good enough."""
        answered = any(not answer.reason for answer in self.answers)
        return answered and (self.comparison is None or self.comparison.good_enough)


def run_demo(
    out: Path, *, healthy: bool = False, series: Path | None = None, seed: int = 1, progress: Progress
) -> DemoReport:
    """Tell the whole story; archive and node are stopped in the end, however it ends.

    Parameters
    ----------
    out : Path
        Gets the phantom (``series/``), what came back (``archive/``), the pictures and the node's log.
    healthy : bool
        A phantom without lesions.
    series : Path, optional
        A folder of DICOM files instead of a phantom.
    seed : int
        Of the phantom.
    progress : callable
        Told of stages.

    Raises
    ------
    DemoError
        The node does not start, takes nothing, ends by itself, or gives no results in time.
    DeliveryError
        There is no such folder.
    """
    begun = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    phantom: Phantom | None = None
    if series is None:
        progress("making a phantom", 0, 1)
        phantom = abdomen_phantom(healthy=healthy, seed=seed)
        series = out / "series"
        write_ct_series(series, phantom.hu, phantom.geometry, seed=("demo", seed, healthy))
        progress("making a phantom", 1, 1)
    found = find_sendable(series)
    if not found.items:
        raise DemoError(f"{series} holds no DICOM file")
    progress("starting archive and node", 0, 1)
    with (
        tempfile.TemporaryDirectory(prefix=".node-", dir=out) as scratch,
        Archive(out / "archive") as archive,
        Node(Path(scratch), out / "node.log", Peer(archive.ae_title, "127.0.0.1", archive.port)) as node,
    ):
        progress("starting archive and node", 1, 1)
        shipment = send(
            found.items, node.peer, SCANNER, Timeouts(), lambda done, total: progress("sending", done, total)
        )
        if not shipment.stored:
            raise DemoError(f"the node took nothing of {series}: {shipment.failed[0][1].message}")
        records = _wait(node, archive, progress)
        layout = DataLayout(node.data)
        answers = (
            *(_answer(layout, record, archive.kept, out, alone=len(records) == 1) for record in records),
            *_rejections(layout),
        )
        answered = any(not answer.reason for answer in answers)
        comparison = _compare(phantom, answers, archive.kept) if phantom is not None and answered else None
    return DemoReport(
        sent=shipment.stored,
        not_sent=len(shipment.failed),
        answers=answers,
        comparison=comparison,
        seconds=time.monotonic() - begun,
    )


def _wait(node: Node, archive: Archive, progress: Progress) -> tuple[RunRecord, ...]:
    """Wait until every series is answered and every object has come back."""
    layout = DataLayout(node.data)
    begun = time.monotonic()
    told = -1
    while True:
        node.check()
        records = _records(layout)
        expected = {item.sop_instance_uid for record in records for item in record.objects}
        arrived = len(expected & {item.sop_instance_uid for item in archive.kept})
        total = len(expected) or 4
        waited = time.monotonic() - begun
        if _all_answered(layout, patient=waited < UNUSED_SECONDS) and arrived == len(expected):
            progress("waiting for results", arrived, arrived)
            return records
        if arrived != told:
            progress("waiting for results", arrived, max(total, arrived + 1))
            told = arrived
        if waited > WAIT_SECONDS:
            raise DemoError(f"no results after {WAIT_SECONDS:.0f} s; the node's log is {node.log}")
        time.sleep(0.1)


def _records(layout: DataLayout) -> tuple[RunRecord, ...]:
    records = (read_record(folder) for folder in sorted(layout.results.iterdir()))
    return tuple(record for record in records if record is not None and record.outcome is not Outcome.REJECTED)


def _all_answered(layout: DataLayout, *, patient: bool) -> bool:
    """Whether each manifest has its run and, while there is patience, each series its answer."""
    finished = {folder.name for folder in layout.results.iterdir() if _is_finished(folder)}
    if any(manifest.stem not in finished for manifest in layout.manifests.glob("*.json")):
        return False
    series = {folder.name for study in layout.spool.iterdir() if study.is_dir() for folder in study.iterdir()}
    # A stack's label begins with its series.
    answered = {name for name in series if any(run == name or run.startswith(f"{name}.") for run in finished)}
    return answered == series or not patient


def _is_finished(folder: Path) -> bool:
    if (folder / "run.json").exists():
        return True
    return (folder / "findings.json").exists() and load_findings(folder).outcome is Outcome.REJECTED


def _answer(layout: DataLayout, record: RunRecord, kept: Sequence[Kept], out: Path, *, alone: bool) -> Answer:
    ours = {item.sop_instance_uid for item in record.objects}
    returned = [item for item in kept if item.sop_instance_uid in ours]
    picture = out / ("overlay.png" if alone else f"{record.label}.overlay.png")
    made = layout.results / f"{record.label}.g{record.generation}" / "overlay.png"
    if made.exists():
        shutil.copyfile(made, picture)
    return Answer(
        label=record.label,
        outcome=record.outcome.value if record.outcome is not None else "superseded",
        lesions=read_lesions(returned),
        objects=tuple(ReturnedObject(UID(item.sop_class_uid).name, item.path) for item in returned),
        picture=picture if made.exists() else None,
        reason=record.failure,
    )


def _rejections(layout: DataLayout) -> tuple[Answer, ...]:
    answers = []
    for folder in sorted(layout.results.iterdir()):
        if not (folder / "findings.json").exists():
            continue
        rejection = load_findings(folder).rejection
        if rejection is not None:
            reason = f"{rejection.message} [{rejection.reason.value}]"
            answers.append(Answer(folder.name, Outcome.REJECTED.value, (), (), None, reason))
    return tuple(answers)


def _compare(phantom: Phantom, answers: Sequence[Answer], kept: Sequence[Kept]) -> Comparison:
    lesions = [lesion for answer in answers for lesion in answer.lesions]
    return compare(phantom, lesions, read_masks(kept, phantom.geometry))
