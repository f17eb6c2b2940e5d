"""The embedded detector: HU against the liver's own distribution; no model."""
