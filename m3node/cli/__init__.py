"""The command line: parses, calls and shows."""

from m3node.cli.main import main

__all__ = ["main"]
