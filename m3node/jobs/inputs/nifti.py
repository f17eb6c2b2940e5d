"""A NIfTI volume with a liver mask: results as ``findings.json``, NIfTI masks and pictures; no DICOM objects."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from m3node.errors import InputRejected
from m3node.imaging.nifti import read_nifti, read_nifti_mask, write_nifti_mask
from m3node.jobs.answer.steps import OVERLAY, look, make_detector
from m3node.jobs.inputs.dicom import InputReport, StackReport, clear, summarise
from m3node.liver.find import find_liver, region_from_mask
from m3node.progress import Progress
from m3node.rejection import Rejection
from m3node.results.attention.sheet import draw_sheet
from m3node.results.findings import Findings, Outcome
from m3node.results.overlay import draw_overlay
from m3node.results.store import save_findings
from m3node.results.succession import assign_tracking
from m3node.settings import Settings

LIVER_MASK = "liver.nii.gz"
LESION_MASK = "lesions.nii.gz"
ATTENTION_PICTURE = "attention.png"
_SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """Whether the name says that the file is a NIfTI volume."""
    return path.is_file() and path.name.lower().endswith(_SUFFIXES)


def process_nifti(
    path: Path, liver_mask: Path | None, out: Path, settings: Settings, progress: Progress
) -> InputReport:
    """Answer a NIfTI volume.

    Parameters
    ----------
    path : Path
        Volume in HU.
    liver_mask : Path, optional
        Liver on the same grid, non-zero is liver; the embedded segmentation looks for it otherwise.
    out : Path
        Results go to ``out/<name>/``: ``findings.json``, ``liver.nii.gz``, ``lesions.nii.gz`` (value n is lesion n)
        and ``overlay.png``; with ``results.attention_map``, ``attention.png`` and its cells in ``attention.npz``.
        Results of an earlier call are replaced.
    settings : Settings
        The tree.
    progress : callable
        Told of stages.
    """
    label = path.name.lower().removesuffix(".gz").removesuffix(".nii")
    out.mkdir(parents=True, exist_ok=True)
    folder = out / label
    try:
        findings = _answer(path, liver_mask, folder, settings, progress)
    except InputRejected as error:
        if folder.is_dir():
            _clear(folder, liver_mask)
        stack = StackReport(label, Outcome.REJECTED, None, 0, Rejection(error.reason, error.message, path.name))
    else:
        stack = StackReport(label, findings.outcome, folder, len(findings.lesions), None)
    report = InputReport((stack,))
    summarise(report, out)
    return report


def _answer(path: Path, liver_mask: Path | None, folder: Path, settings: Settings, progress: Progress) -> Findings:
    volume = read_nifti(path)
    key = hashlib.sha256(path.read_bytes())
    if liver_mask is None:
        region = find_liver(volume, settings.liver, progress=progress)
    else:
        key.update(liver_mask.read_bytes())
        region = region_from_mask(read_nifti_mask(liver_mask, volume, None), volume.geometry, settings.liver)
    findings = assign_tracking(
        look(
            volume,
            region,
            key=key.hexdigest(),
            settings=settings,
            detector=make_detector(settings),
            progress=progress,
        )
    )
    _clear(folder, liver_mask)
    save_findings(findings, folder)
    draw_overlay(volume, findings, folder / OVERLAY)
    if findings.attention:
        draw_sheet(volume, findings, folder / ATTENTION_PICTURE)
    liver = np.zeros(volume.geometry.shape, dtype=np.uint8)
    if findings.region is not None:
        liver[findings.region.parenchyma.full()] = 1
    write_nifti_mask(liver, volume.geometry, folder / LIVER_MASK)
    lesions = np.zeros(volume.geometry.shape, dtype=np.uint8)
    for lesion in findings.lesions:
        lesions[lesion.mask.full()] = min(lesion.number, 255)
    write_nifti_mask(lesions, volume.geometry, folder / LESION_MASK)
    return findings


def _clear(folder: Path, liver_mask: Path | None) -> None:
    """Remove an earlier call's results; its liver stays where it is this call's input, corrected perhaps."""
    clear(folder)
    for path in (folder / name for name in (LIVER_MASK, LESION_MASK, ATTENTION_PICTURE)):
        if path.exists() and not (liver_mask is not None and liver_mask.exists() and path.samefile(liver_mask)):
            path.unlink()
