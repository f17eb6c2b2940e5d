"""The liver on a CT slice: found once in the slice's whole series, which must lie in the same folder of images."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from m3node.attention.images.finding import ImageFolder, sop_instance_uid
from m3node.attention.images.image import ImageKind, InputImage
from m3node.errors import InputRejected
from m3node.imaging.assemble import assemble
from m3node.imaging.mask import VoxelMask
from m3node.intake.series import sop_classes
from m3node.intake.series.eligibility import judge
from m3node.intake.series.header import InstanceHeader
from m3node.intake.series.manifest import Manifest, make_manifest
from m3node.intake.series.reading import read_headers
from m3node.intake.series.seg_reference import read_seg_reference
from m3node.intake.series.stacks import group_stacks
from m3node.liver.find import find_liver
from m3node.settings import EligibilitySettings, LiverSettings

_log = logging.getLogger(__name__)

_KEPT = 4
"""Series whose livers are kept: questions come image by image, and images mostly study by study."""

Outlines = dict[str, tuple[VoxelMask, int]]
"""By SOP Instance UID of each slice: the liver's envelope in its stack, and which slice of it this is."""


class LiverOutlines:
    """Livers of the series below a folder, found when they are first asked for.

    Parameters
    ----------
    folder : ImageFolder
        Holds all slices of a series, not only those that are asked about, and received SEGs where there are any.
    liver : LiverSettings, optional
        How it is found.
    eligibility : EligibilitySettings, optional
        Which series are fit to be looked through.
    """

    def __init__(
        self,
        folder: ImageFolder,
        liver: LiverSettings | None = None,
        eligibility: EligibilitySettings | None = None,
    ) -> None:
        self.folder = folder
        self.liver = liver or LiverSettings()
        self.eligibility = eligibility or EligibilitySettings()
        self._kept: OrderedDict[str, Outlines] = OrderedDict()

    def find(self, image: InputImage) -> npt.NDArray[np.bool_] | None:
        """Return the liver's envelope on a slice.

        Returns
        -------
        ndarray of bool, shape (rows, columns), or None
            None where the image is no slice of CT, its series is not fit (the log says why), or it has no liver here.
        """
        if image.kind is not ImageKind.CT or not image.series_uid:
            return None
        if image.series_uid not in self._kept:
            self._kept[image.series_uid] = self._outlines(image.series_uid)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(image.series_uid)
        found = self._kept[image.series_uid].get(sop_instance_uid(image.path))
        if found is None:
            return None
        envelope, k = found
        plane = envelope.on_slice(k)
        return plane if plane.shape == image.shape and plane.any() else None

    def _outlines(self, series_uid: str) -> Outlines:
        segs = self._segs(series_uid)
        outlines: Outlines = {}
        for manifest in self._manifests(series_uid):
            try:
                volume = assemble(manifest)
            except InputRejected as error:
                _log.warning("no liver is looked for in series %s: %s", series_uid, error.message)
                continue
            region = find_liver(volume, self.liver, seg_paths=segs)
            if region is None:
                _log.warning("no liver is found in series %s", series_uid)
                continue
            for k, ref in enumerate(manifest.slices):
                outlines[manifest.instances[ref.instance].sop_instance_uid] = (region.envelope, k)
        return outlines

    def _manifests(self, series_uid: str) -> list[Manifest]:
        """Return the fit stacks of a series."""
        files = self.folder.series(series_uid)
        read = read_headers([file.path for file in files], self.folder.root)
        headers = [header for header in read if isinstance(header, InstanceHeader)]
        manifests = []
        for stack in group_stacks(headers):
            refusal = judge(stack, self.eligibility)
            if refusal is None:
                manifests.append(make_manifest(stack, root=self.folder.root))
            else:
                _log.warning("no liver is looked for in series %s: %s", series_uid, refusal.message)
        return manifests

    def _segs(self, series_uid: str) -> list[Path]:
        """Return the SEGs that show the liver of a series, newest first."""
        paths = [file.path for file in self.folder.of_class(sop_classes.SEGMENTATION)]
        told = ((path, read_seg_reference(path)) for path in paths)
        mine = [path for path, seg in told if seg.liver and series_uid in seg.series]
        return sorted(mine, key=lambda path: path.stat().st_mtime_ns, reverse=True)
