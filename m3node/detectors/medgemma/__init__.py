"""The detector `medgemma`: a steered vision-language model that is asked for boxes, crop by crop.

Needs the extra ``medgemma`` (torch, transformers).
"""

from m3node.detectors.medgemma.detector import MedGemmaDetector

__all__ = ["MedGemmaDetector"]
