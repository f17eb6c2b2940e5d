"""The one way to a liver region: a received SEG where there is one that fits, else the embedded segmentation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from m3node.errors import InputRejected
from m3node.imaging.geometry import PatientGeometry
from m3node.imaging.mask import VoxelMask
from m3node.imaging.volume import CTVolume
from m3node.liver.embedded import ALGORITHM, segment_liver
from m3node.liver.envelope import make_envelope
from m3node.liver.from_seg import region_from_seg
from m3node.liver.region import LiverRegion, LiverSource
from m3node.progress import Progress
from m3node.settings import LiverSettings

logger = logging.getLogger(__name__)

LABEL_MAP_ALGORITHM = "supplied label map"


def find_liver(
    volume: CTVolume,
    settings: LiverSettings,
    *,
    seg_paths: Sequence[Path] = (),
    progress: Progress | None = None,
) -> LiverRegion | None:
    """Find the liver region of a volume.

    Parameters
    ----------
    volume : CTVolume
        The stack.
    settings : LiverSettings
        Whether a received SEG is used, what volume is too small to be a liver, how far the envelope reaches.
    seg_paths : sequence of Path
        Received SEGs that reference the series, newest first; the first that fits is used. One that does not is
        logged with its reason, and the embedded segmentation serves.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    LiverRegion or None
        None: no liver in view. That is never "no lesion".
    """
    if settings.use_received_seg:
        for path in seg_paths:
            region = _received(path, volume, settings)
            if region is not None:
                return region
    parenchyma = segment_liver(volume, progress)
    if parenchyma is None or not _large_enough(parenchyma, volume.geometry, settings):
        return None
    return LiverRegion(
        parenchyma=parenchyma,
        envelope=make_envelope(parenchyma, volume.geometry, settings),
        source=LiverSource.EMBEDDED,
        reference="",
        algorithm=ALGORITHM,
    )


def region_from_mask(mask: VoxelMask, geometry: PatientGeometry, settings: LiverSettings) -> LiverRegion | None:
    """Take a liver mask that the user supplied; None when it holds less than ``min_volume_ml``."""
    if not _large_enough(mask, geometry, settings):
        return None
    return LiverRegion(
        parenchyma=mask.cropped(),
        envelope=make_envelope(mask, geometry, settings),
        source=LiverSource.LABEL_MAP,
        reference="",
        algorithm=LABEL_MAP_ALGORITHM,
    )


def _received(path: Path, volume: CTVolume, settings: LiverSettings) -> LiverRegion | None:
    try:
        region = region_from_seg(path, volume, settings)
    except InputRejected as error:
        logger.warning("received SEG not used (%s): %s", error.reason, error.message)
        return None
    if region is None:
        logger.warning("received SEG not used: it has no liver segment")
        return None
    if not _large_enough(region.parenchyma, volume.geometry, settings):
        logger.warning("received SEG %s not used: its liver is too small", region.reference)
        return None
    return region


def _large_enough(mask: VoxelMask, geometry: PatientGeometry, settings: LiverSettings) -> bool:
    volume_ml = mask.count * geometry.voxel_volume_ml
    if volume_ml < settings.min_volume_ml:
        logger.info("a liver of %.1f ml is less than liver.min_volume_ml", volume_ml)
        return False
    return True
