"""The sentences that every result carries (decision 14 of the design)."""

NOT_FOR_CLINICAL_USE = "Not for clinical use. For research only."

ATTENTION_NOTICE = "Model attention, not a lesion probability, not for diagnosis."
"""Stands beside every picture and number that tells where a model looked."""
