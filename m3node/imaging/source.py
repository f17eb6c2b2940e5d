"""The data sets that results are built from: everything of the source but its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from m3node.errors import InputRejected
from m3node.intake.manifest import Manifest
from m3node.intake.part10 import PARSER_ERRORS
from m3node.rejection import Reason


def load_sources(manifest: Manifest, *, slices: Sequence[int] | None = None) -> list[Dataset]:
    """Read the instances of a manifest without their pixel data.

    Parameters
    ----------
    manifest : Manifest
        The stack.
    slices : sequence of int, optional
        Only the instances of these slices.

    Returns
    -------
    list of Dataset
        Each instance once, in slice order: one a slice for single-frame CT, one for all slices of an Enhanced CT.

    Raises
    ------
    InputRejected
        ``UNREADABLE``: a file is gone or damaged.
    """
    wanted = range(len(manifest.slices)) if slices is None else slices
    numbers = dict.fromkeys(manifest.slices[index].instance for index in sorted(wanted))
    return [_read(Path(manifest.root) / manifest.instances[number].path) for number in numbers]


def _read(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} cannot be read any more: {error.strerror}") from error
    except PARSER_ERRORS as error:
        raise InputRejected(Reason.UNREADABLE, f"{path.name} is damaged; send it again") from error
