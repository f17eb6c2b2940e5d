"""The coded concepts that results use, each once."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from m3node.detectors.protocols import DetectorIdentity, ScoreKind

LESION = CodedConcept("52988006", "SCT", "Lesion")
LIVER = CodedConcept("10200004", "SCT", "Liver")
ABSENT = CodedConcept("272519000", "SCT", "Absent")
ORGAN = CodedConcept("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")

COMMENT = CodedConcept.from_code(codes.DCM.Comment)

CT_PROCEDURE = CodedConcept("25045-6", "LN", "CT unspecified body region")
"""Of CID 100; the contrast phase is not known well enough for a narrower code."""

LONG_AXIS = CodedConcept("103339001", "SCT", "Long Axis")
SHORT_AXIS = CodedConcept("103340004", "SCT", "Short Axis")
VOLUME = CodedConcept("118565006", "SCT", "Volume")
ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
MEAN = CodedConcept("373098007", "SCT", "Mean")
STANDARD_DEVIATION = CodedConcept("386136009", "SCT", "Standard Deviation")

MILLIMETRE = CodedConcept("mm", "UCUM", "millimeter")
MILLILITRE = CodedConcept("ml", "UCUM", "milliliter")
HOUNSFIELD = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")

OWN_SCHEME = "99M3NODE"
"""Designator of the concepts that no standard has (PS3.16 8.2)."""

ATTENTION_SHARE = CodedConcept("attention-share", OWN_SCHEME, "Share of model attention per image token")
"""What the Parametric Map holds. Of CID 7180 only Saliency (130404, DCM) is near, and attention is not that: it says
where a model read, not what decided its answer."""

SCORE_WORDS = {
    ScoreKind.CONTRAST: "contrast-to-noise ratio",
    ScoreKind.TOKEN_PROBABILITY: "token probability",
    ScoreKind.PROBABILITY: "probability",
}


def algorithm_family(detector: DetectorIdentity) -> CodedConcept:
    """Algorithm family (CID 7162): a detector with weights is a model, one without is image processing by rules."""
    family = codes.cid7162.ArtificialIntelligence if detector.weights else codes.cid7162.HistogramAnalysis
    return CodedConcept.from_code(family)
