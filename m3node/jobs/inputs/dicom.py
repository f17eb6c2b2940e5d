"""One input from the command line or the watched folder: every eligible stack in it is answered in the out folder."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from m3node.detectors.protocols import Detector
from m3node.errors import InputRejected
from m3node.intake.folder.inputs import open_input, survey
from m3node.intake.series.manifest import Manifest
from m3node.jobs.answer.failure import failure
from m3node.jobs.answer.record import RECORD
from m3node.jobs.answer.rejections import rejected_findings
from m3node.jobs.answer.steps import FINDINGS, OVERLAY, RUN_KINDS, build, find, make_detector, settings_digest
from m3node.progress import Progress
from m3node.rejection import Rejection
from m3node.results.findings import Outcome
from m3node.results.objects import ObjectKind
from m3node.results.store import ATTENTION_FILE, MASKS_FILE, save_findings
from m3node.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StackReport:
    """What became of one stack.

    Attributes
    ----------
    label : str
        ``<SeriesInstanceUID>[.stack]``; the file's or input's name where there is no stack.
    folder : Path or None
        Where its results lie.
    lesions : int
        How many were found.
    rejection : Rejection or None
        Set when ``outcome`` is ``REJECTED``.
    """

    label: str
    outcome: Outcome
    folder: Path | None
    lesions: int
    rejection: Rejection | None


@dataclass(frozen=True, slots=True)
class InputReport:
    """What became of one input: its stacks, and whatever in it was no stack."""

    stacks: tuple[StackReport, ...]

    @property
    def processed(self) -> int:
        """Stacks that were answered."""
        return sum(1 for stack in self.stacks if stack.outcome is not Outcome.REJECTED)


def process_input(path: Path, out: Path, settings: Settings, progress: Progress) -> InputReport:
    """Answer every eligible stack of a folder, ZIP or DICOM file.

    Parameters
    ----------
    path : Path
        The input; nothing in it is changed.
    out : Path
        Results go to ``out/<SeriesInstanceUID>[.stack]/``, a summary to ``out/findings.json``. Results of an
        earlier call that lie there are replaced.
    settings : Settings
        The tree.
    progress : callable
        Told of stages.

    Returns
    -------
    InputReport
        One entry for each stack, and for each thing that is not used.
    """
    out.mkdir(parents=True, exist_ok=True)
    reports: list[StackReport] = []
    try:
        with open_input(
            path, max_unpacked_bytes=settings.watch.max_unpacked_bytes, max_members=settings.watch.max_members
        ) as root:
            found = survey(root, settings, progress=progress)
            for key, rejection in found.rejections:
                folder = _record(out / key.label, rejection) if key is not None else None
                label = key.label if key is not None else rejection.subject
                reports.append(StackReport(label, Outcome.REJECTED, folder, 0, rejection))
            detector = make_detector(settings)
            for manifest in found.manifests:
                reports.append(_answer(manifest, out / manifest.stack.label, settings, detector, progress))
    except InputRejected as error:
        rejection = Rejection(error.reason, error.message, path.name)
        reports.append(StackReport(path.name, Outcome.REJECTED, None, 0, rejection))
    report = InputReport(tuple(reports))
    summarise(report, out)
    return report


def _answer(
    manifest: Manifest, folder: Path, settings: Settings, detector: Detector, progress: Progress
) -> StackReport:
    label = manifest.stack.label
    clear(folder)
    try:
        findings = find(manifest, folder, settings, detector, progress)
        build(manifest, findings, folder, settings, kinds=RUN_KINDS)
    except Exception as error:  # noqa: BLE001 - one stack's failure must not cost the others their answer
        rejection = failure(error, label)
    else:
        return StackReport(label, findings.outcome, folder, len(findings.lesions), None)
    clear(folder)
    save_findings(
        rejected_findings(rejection, manifest_key=manifest.key, settings_digest=settings_digest(settings)), folder
    )
    return StackReport(label, Outcome.REJECTED, folder, 0, rejection)


def _record(folder: Path, rejection: Rejection) -> Path:
    clear(folder)
    save_findings(rejected_findings(rejection), folder)
    return folder


def clear(folder: Path) -> None:
    """Remove what an earlier call left under the names that this one writes; everything else stays."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {FINDINGS, MASKS_FILE, ATTENTION_FILE, OVERLAY, RECORD, *(kind.file_name for kind in ObjectKind)}
    for name in names:
        (folder / name).unlink(missing_ok=True)


def summarise(report: InputReport, out: Path) -> None:
    """Write the summary of an input to ``out/findings.json``."""
    (out / "findings.json").write_text(json.dumps(summary(report), indent=1) + "\n", encoding="utf-8")


def summary(report: InputReport) -> dict[str, object]:
    """Return the report as what ``findings.json`` of the out folder and ``--json`` hold."""
    return {
        "schema": "m3node.input/1",
        "processed": report.processed,
        "stacks": [
            {
                "label": stack.label,
                "outcome": stack.outcome.value,
                "lesions": stack.lesions,
                "folder": stack.folder.name if stack.folder else None,
                "reason": stack.rejection.reason.value if stack.rejection else None,
                "message": stack.rejection.message if stack.rejection else None,
            }
            for stack in report.stacks
        ],
    }
