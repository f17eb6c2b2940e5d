"""One input that a person points at: ``m3node run`` and the watched folder."""
