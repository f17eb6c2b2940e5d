"""DICOM files as their two parts."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.filereader import read_preamble


def split_file(path: Path) -> tuple[pydicom.Dataset, bytes]:
    """Return a file's meta information and its encoded data set."""
    with path.open("rb") as file:
        read_preamble(file, force=True)
        meta = pydicom.filereader._read_file_meta_info(file)
        return meta, file.read()
