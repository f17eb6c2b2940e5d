"""Follows the spool: the index, when a series is complete, revisions and generations."""
