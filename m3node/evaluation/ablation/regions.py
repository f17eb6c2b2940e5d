"""Which liver a condition is run in: the true one or the one that the node finds, on all its slices or on one."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from m3node.durable import write_over
from m3node.errors import InputRejected
from m3node.evaluation.cases.reading import Case
from m3node.imaging.mask import VoxelMask
from m3node.liver.find import find_liver, region_from_mask
from m3node.liver.region import LiverRegion, LiverSource
from m3node.rejection import Reason
from m3node.settings import LiverSettings

_log = logging.getLogger(__name__)

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, TypeError, RuntimeError)
"""What `numpy.load` and the reading after it raise for bytes that were changed or cut, one bit at a time."""


class LiverFrom(StrEnum):
    """Whose liver."""

    PREDICTED = "predicted"
    TRUTH = "truth"


def case_region(case: Case, source: LiverFrom, settings: LiverSettings, kept: Path) -> LiverRegion | None:
    """Return the liver region of a case; None when none is found.

    Parameters
    ----------
    kept : Path
        Where the predicted liver is kept, so that it is looked for once; its name says case and settings.

    Raises
    ------
    InputRejected
        The true liver is asked for and not known, or too small.
    """
    if source is LiverFrom.TRUTH:
        if case.liver is None:
            raise InputRejected(
                Reason.MISSING_GEOMETRY,
                "its liver is not known; put in liver.nii.gz, labels.nii.gz or a SEG, or let the liver be predicted",
            )
        region = region_from_mask(case.liver, case.volume.geometry, settings)
        if region is None:
            raise InputRejected(
                Reason.UNSUPPORTED_PIXELS, "its true liver is smaller than liver.min_volume_ml; is it the right mask?"
            )
        return region
    parenchyma = _kept(kept, case.volume.geometry.shape)
    if parenchyma is None:
        found = find_liver(case.volume, settings)
        parenchyma = found.parenchyma if found is not None else VoxelMask.empty(case.volume.geometry.shape)
        _keep(parenchyma, kept)
    region = region_from_mask(parenchyma, case.volume.geometry, settings)
    return region if region is None else replace(region, source=LiverSource.EMBEDDED)


def largest_lesion_slice(lesions: tuple[VoxelMask, ...]) -> int:
    """Slice on which the true lesions cover most, the lowest of equals."""
    areas: dict[int, int] = {}
    for lesion in lesions:
        for offset, plane in enumerate(lesion.data):
            k = lesion.start[0] + offset
            areas[k] = areas.get(k, 0) + int(np.count_nonzero(plane))
    return max(sorted(areas), key=lambda k: areas[k])


def on_one_slice(mask: VoxelMask, k: int) -> VoxelMask:
    """Keep one slice of a mask."""
    return VoxelMask(shape=mask.shape, start=(k, 0, 0), data=mask.on_slice(k)[None]).cropped()


def _keep(mask: VoxelMask, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    np.savez_compressed(stream, start=np.array(mask.start), data=mask.data)
    write_over(path, stream.getvalue())


def _kept(path: Path, shape: tuple[int, int, int]) -> VoxelMask | None:
    """What was kept; None when nothing was, or nothing that can be used, so that it is made anew."""
    try:
        # Opened here: numpy leaves a damaged file open that it opened itself.
        with path.open("rb") as stream, np.load(stream) as held:
            k, r, c = (int(first) for first in held["start"])
            data = held["data"].astype(np.bool_)
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        _log.warning("the kept liver %s cannot be read (%s); it is made anew", path.name, type(error).__name__)
        return None
    if data.ndim != len(shape) or any(
        first < 0 or first + size > whole for first, size, whole in zip((k, r, c), data.shape, shape, strict=True)
    ):
        _log.warning("the kept liver %s does not fit its case; it is made anew", path.name)
        return None
    return VoxelMask(shape=shape, start=(k, r, c), data=data)
