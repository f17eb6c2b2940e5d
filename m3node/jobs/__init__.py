"""Strings the stages together: one run per manifest; the seam where the durable engine will sit."""
