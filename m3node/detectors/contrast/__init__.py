"""The embedded detector `contrast`: hypodense foci by a rule on HU, for a site without a model."""

from m3node.detectors.contrast.detector import ContrastDetector

__all__ = ["ContrastDetector"]
