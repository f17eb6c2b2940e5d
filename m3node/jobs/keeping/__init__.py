"""Keeps house: which received pixels, results and records may go, and when."""
