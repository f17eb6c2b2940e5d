"""Phantom cases: 3-D abdomens with known lesions, and healthy ones, as a folder of cases."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np

from m3node import __version__
from m3node.errors import ConfigError
from m3node.evaluation.cases.layout import CASE_FILE
from m3node.evaluation.ct_writer import write_ct_series
from m3node.evaluation.phantom import Phantom, abdomen_phantom
from m3node.imaging.nifti import RAS_TO_LPS, write_nifti_mask
from m3node.progress import Progress

FIRST_SEED = 1_000_000
"""Seeds from here on are held out: no model of this package was trained on them."""

SHAPE = (40, 512, 512)
SPACING = (5.0, 0.8, 0.8)
"""mm between slices, rows and columns: thick slices, so that a case takes seconds."""


def write_phantom_cases(
    out: Path,
    *,
    ill: int,
    healthy: int,
    first_seed: int = FIRST_SEED,
    dicom: bool = False,
    progress: Progress,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
) -> tuple[Path, ...]:
    """Write phantom cases, each of a patient of its own: all of them or, when interrupted, none yet.

    They are made in a hidden folder inside ``out`` and moved when all are there; the same call goes on with what an
    interrupted one left.

    Parameters
    ----------
    out : Path
        Made when absent; no case of the names that are written may be in it.
    ill, healthy : int
        How many with five lesions, and how many without.
    first_seed : int
        The first one's seed; the others count on from it, those with lesions first.
    dicom : bool
        The CT as a DICOM series instead of NIfTI; masks are NIfTI either way.
    progress : callable
        Called with (stage, done, total).
    shape, spacing : tuple
        Of the volumes.

    Returns
    -------
    tuple of Path
        The cases' folders.

    Raises
    ------
    ConfigError
        A case of that name is there already.
    """
    names = [f"{'healthy' if number >= ill else 'lesions'}-{first_seed + number}" for number in range(ill + healthy)]
    asked = (__version__, ill, healthy, first_seed, dicom, shape, spacing)
    # With a dot it is no case; with what was asked in its name, nothing of another call gets among these.
    making = out / f".phantoms-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"
    # Once this is there all are made, and what lies in ``out`` under their names was moved there by this very call.
    moving = making / ".moving"
    if not moving.exists() and (taken := [name for name in names if (out / name).exists()]):
        raise ConfigError(f"{out} holds {taken[0]} already; name another folder, or another first seed")
    making.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        progress("making phantoms", number, len(names))
        if not (making / name).exists() and not (out / name).exists():
            phantom = abdomen_phantom(healthy=number >= ill, seed=first_seed + number, shape=shape, spacing=spacing)
            _write(phantom, making / name, seed=first_seed + number, dicom=dicom)
    moving.touch()
    for name in names:
        if (making / name).exists():
            (making / name).rename(out / name)
    shutil.rmtree(making)
    progress("making phantoms", len(names), len(names))
    return tuple(out / name for name in names)


def _write(phantom: Phantom, folder: Path, *, seed: int, dicom: bool) -> None:
    # A folder with this name is whole: an interrupted call leaves one with a dot, which is no case.
    part = folder.with_name(f".{folder.name}")
    part.mkdir(parents=True, exist_ok=True)
    if dicom:
        write_ct_series(part / "ct", phantom.hu, phantom.geometry, seed=("phantom case", seed))
    else:
        affine = RAS_TO_LPS @ phantom.geometry.affine[:, [2, 1, 0, 3]]
        image = nibabel.Nifti1Image(np.ascontiguousarray(phantom.hu.transpose(2, 1, 0)), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, part / "ct.nii.gz")
    write_nifti_mask(phantom.liver, phantom.geometry, part / "liver.nii.gz")
    lesions = np.zeros(phantom.geometry.shape, dtype=np.uint8)
    for value, lesion in enumerate(phantom.lesions, start=1):
        lesions[lesion.mask.full()] = value
    write_nifti_mask(lesions, phantom.geometry, part / "lesions.nii.gz")
    said = {"phantom": True, "healthy": not phantom.lesions}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())
    (part / CASE_FILE).write_text(text, encoding="utf-8")
    part.rename(folder)
