"""The sentence that every result carries (decision 14 of the design)."""

NOT_FOR_CLINICAL_USE = "Not for clinical use. For research only."
