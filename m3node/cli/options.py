"""What several commands' parsers share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (TOML); M3NODE_CONFIG names it otherwise"
    )


def text_epilog(*examples: str) -> str:
    """Return the epilog that shows examples."""
    heading = "example" if len(examples) == 1 else "examples"
    return "\n".join([f"{heading}:", *(f"  {example}" for example in examples)])
