"""The embedded detector: a rule on HU, no model."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator

import numpy as np

from m3node import __version__
from m3node.detectors.contrast.field import make_field
from m3node.detectors.contrast.foci import Focus, find_foci
from m3node.detectors.contrast.grid import make_grid
from m3node.detectors.protocols import Box2D, DetectorIdentity, ScoreKind, View, ViewBox, ViewResult
from m3node.imaging.volume import CTVolume, HUArray
from m3node.liver.region import LiverRegion
from m3node.settings import ContrastSettings, DetectorSettings

logger = logging.getLogger(__name__)

_MIN_PIXELS = 3


class ContrastDetector:
    """Finds compact foci that are darker than the liver around them; a `CropDetector`.

    Parameters
    ----------
    settings : ContrastSettings
        Whether foci that are brighter count too.
    """

    def __init__(self, settings: ContrastSettings) -> None:
        self._settings = settings
        self._last: tuple[weakref.ref[HUArray], LiverRegion, tuple[Focus, ...] | None] | None = None

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> ContrastDetector:
        """Build it from the settings, as the registry does."""
        return cls(settings.contrast)

    @property
    def identity(self) -> DetectorIdentity:
        """Name, version and what it is."""
        looked_for = "hypodense and hyperdense foci" if self._settings.hyperdense else "hypodense foci"
        return DetectorIdentity(
            name="m3node contrast",
            version=__version__,
            description=f"Embedded contrast rule, no trained model: finds {looked_for} against the liver's own HU.",
            parameters=(("hyperdense", str(self._settings.hyperdense).lower()),),
        )

    @property
    def score_kind(self) -> ScoreKind:
        """Contrast-to-noise."""
        return ScoreKind.CONTRAST

    def look(self, views: Iterable[View], volume: CTVolume, region: LiverRegion) -> Iterator[ViewResult]:
        """Answer each view with the foci that its slice cuts.

        The foci are found once, in 3-D, when the first view comes; each view then gets the outlines on its slice.
        """
        known: tuple[Focus, ...] | None = None
        for at, view in enumerate(views):
            if at == 0:
                known = self._known_foci(volume, region)
            # What could not be compared with a liver was not looked at, and must not come out as "no lesion".
            yield (
                ViewResult(boxes=(), failure="too little liver tissue to compare with")
                if known is None
                else ViewResult(boxes=tuple(_boxes(known, view)))
            )

    def _known_foci(self, volume: CTVolume, region: LiverRegion) -> tuple[Focus, ...] | None:
        """Do as `foci`, once for a volume and region: a second look must not search again."""
        if self._last is not None and self._last[0]() is volume.hu and self._last[1] is region:
            return self._last[2]
        found = self.foci(volume, region)
        # Held weakly: a detector outlives its volumes, which are large.
        self._last = (weakref.ref(volume.hu), region, found)
        return found

    def foci(self, volume: CTVolume, region: LiverRegion) -> tuple[Focus, ...] | None:
        """Find the foci of a volume, best first; None where there is too little liver tissue to compare with."""
        grid = make_grid(volume, region)
        field = None if grid is None else make_field(grid)
        if grid is None or field is None:
            logger.warning("there is too little liver tissue to compare with; no focus can be found")
            return None
        found = find_foci(grid, field)
        if self._settings.hyperdense:
            found += find_foci(grid, field, bright=True)
        return found


def _boxes(foci: Iterable[Focus], view: View) -> Iterator[ViewBox]:
    (r0, c0), (rows, columns), k = view.origin, view.hu.shape, view.slice_index
    for focus in foci:
        first = focus.mask.start[0]
        if not first <= k < first + focus.mask.data.shape[0]:
            continue
        mask = focus.mask.within(((k, k + 1), (r0, r0 + rows), (c0, c0 + columns)))[0]
        if np.count_nonzero(mask) < _MIN_PIXELS:
            continue
        hit_rows, hit_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = Box2D(float(hit_rows[0]), float(hit_columns[0]), float(hit_rows[-1] + 1), float(hit_columns[-1] + 1))
        yield ViewBox(box=box, score=focus.score, mask=mask)
