"""The folder of cases: one folder a case, and in it a CT and what is known of it."""

from __future__ import annotations

import hashlib
import os
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3node.errors import ConfigError

CASE_FILE = "case.toml"
LAYOUT = (
    "a folder of cases has one folder a case; a case holds a DICOM series, or ct.nii.gz, and what is known of it: "
    "liver.nii.gz and lesions.nii.gz, or labels.nii.gz (1 liver, 2 lesion), or a DICOM SEG of the series"
)
_SUFFIXES = (".nii.gz", ".nii")
_KEYS = {"patient": str, "healthy": bool, "phantom": bool}


@dataclass(frozen=True, slots=True)
class CaseFolder:
    """A case before it is read.

    Attributes
    ----------
    name : str
        Name of its folder.
    folder : Path
        Where it lies.
    patient : str
        Cases of one patient are resampled together; the case's own name unless ``case.toml`` says otherwise.
    healthy : bool
        ``case.toml`` says that there is no lesion in it.
    phantom : bool
        ``case.toml`` says that it is no patient.
    volume : Path or None
        NIfTI volume; None for a DICOM series.
    liver, lesions, labels : Path or None
        NIfTI masks.
    """

    name: str
    folder: Path
    patient: str
    healthy: bool
    phantom: bool
    volume: Path | None
    liver: Path | None
    lesions: Path | None
    labels: Path | None

    def digest(self) -> str:
        """SHA-256 over the names and contents of all its files."""
        digest = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            digest.update(os.fsencode(path.relative_to(self.folder)))
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def find_cases(root: Path) -> tuple[CaseFolder, ...]:
    """Find the cases of a folder, by name.

    Raises
    ------
    ConfigError
        There are none, or one contradicts itself; the message names the case and what to do.
    """
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; {LAYOUT}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ConfigError(f"{root} holds no case; {LAYOUT}")
    return tuple(_case(folder) for folder in folders)


def _case(folder: Path) -> CaseFolder:
    # It comes up in every file that an evaluation writes, after the work is done.
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in folder.name):
        raise ConfigError(f"case {folder.name!a}: such a name cannot be written into tables; rename the folder")
    said = _said(folder)
    files = {name: _nifti(folder, name) for name in ("ct", "liver", "lesions", "labels")}
    if files["labels"] is not None and (files["liver"] is not None or files["lesions"] is not None):
        raise ConfigError(
            f"case {folder.name}: labels.nii.gz says liver and lesions both; remove it, or liver.nii.gz and "
            "lesions.nii.gz"
        )
    if files["ct"] is None and not _may_hold_dicom(folder):
        raise ConfigError(f"case {folder.name}: it has no CT; put in ct.nii.gz or the files of one DICOM series")
    return CaseFolder(
        name=folder.name,
        folder=folder,
        patient=str(said.get("patient", folder.name)),
        healthy=bool(said.get("healthy", False)),
        phantom=bool(said.get("phantom", False)),
        volume=files["ct"],
        liver=files["liver"],
        lesions=files["lesions"],
        labels=files["labels"],
    )


def _nifti(folder: Path, name: str) -> Path | None:
    found = [folder / f"{name}{suffix}" for suffix in _SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise ConfigError(f"case {folder.name}: {name}.nii and {name}.nii.gz are both there; keep one of them")
    return found[0] if found else None


def _may_hold_dicom(folder: Path) -> bool:
    return any(
        path.is_file() and path.name != CASE_FILE and not path.name.lower().endswith(_SUFFIXES)
        for path in folder.rglob("*")
    )


def _said(folder: Path) -> dict[str, Any]:
    path = folder / CASE_FILE
    if not path.exists():
        return {}
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"case {folder.name}: {CASE_FILE} cannot be read: {error}") from error
    for key, value in said.items():
        if key not in _KEYS:
            raise ConfigError(f"case {folder.name}: {CASE_FILE} has {key!r}; it may have {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]):
            raise ConfigError(f"case {folder.name}: {CASE_FILE}: {key} = {value!r} is no {_KEYS[key].__name__}")
    return said
