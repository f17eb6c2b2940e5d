"""The patient ID of a DICOM file, for the audit trail alone: no log, message or table may have it."""

from __future__ import annotations

from pathlib import Path

from m3node.intake.series.elements import text
from m3node.intake.series.part10 import open_part10

_CHARACTER_SET, _PATIENT_ID = 0x00080005, 0x00100020


def patient_id(path: Path) -> str:
    """Read a file's Patient ID (0010,0020); empty when it has none or cannot be read. Pixels are not read."""
    try:
        opened = open_part10(path, name=path.stem, tags=(_CHARACTER_SET, _PATIENT_ID), digest=False)
        return text(opened.data_set, _PATIENT_ID)
    except Exception:  # noqa: BLE001 - what a hostile file makes of the parser must not end who only wants to audit it
        return ""
