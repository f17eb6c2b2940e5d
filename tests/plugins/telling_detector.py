"""A detector that says aloud what it should keep to itself, for the tests that look for such words.

``M3NODE_TEST_TELLS`` is ``raises:<words>``, which are then an error's, or ``logs:<words>``.
"""

from __future__ import annotations

import logging
import os

from m3node.detectors.protocols import Detection, DetectorIdentity
from m3node.imaging.volume import CTVolume
from m3node.liver.region import LiverRegion
from m3node.progress import Progress
from m3node.settings import DetectorSettings

TELLS = "M3NODE_TEST_TELLS"


class TellingDetector:
    """Finds nothing."""

    identity = DetectorIdentity("telling", "1", "Tells what it was told; for tests only.")
    keep_attention = False

    @classmethod
    def from_settings(cls, settings: DetectorSettings) -> TellingDetector:
        return cls()

    def find(self, volume: CTVolume, region: LiverRegion, progress: Progress) -> Detection:
        how, _, words = os.environ[TELLS].partition(":")
        if how == "raises":
            raise ValueError(words)
        logging.getLogger("m3node.telling").warning("the patient is %s", words)
        return Detection(candidates=(), views_total=1, views_read=1)
