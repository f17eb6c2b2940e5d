"""What several commands' parsers share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from m3node.errors import ConfigError
from m3node.settings import Settings, load

LAST_SLOT = 999
"""Machines number their slots as they like; more GPUs than that are no node."""


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (TOML); M3NODE_CONFIG names it otherwise"
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-dir``."""
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the node's data folder (data_dir)")


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Add ``--detector`` and ``--model``, which `detector_flags` reads."""
    parser.add_argument("--detector", metavar="NAME", help="detector to use (default: the settings', contrast)")
    parser.add_argument(
        "--model",
        metavar="NAME|FOLDER",
        help="model of the detector medgemma, which it chooses: hub name, folder, or 'test' for the small test model",
    )


def detector_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the settings that ``--detector`` and ``--model`` stand for.

    Raises
    ------
    ConfigError
        The named detector has no model to choose.
    """
    if arguments.model is not None and arguments.detector not in {None, "medgemma"}:
        raise ConfigError(f"--model goes with the detector medgemma; {arguments.detector} has none to choose")
    name = arguments.detector if arguments.model is None else "medgemma"
    flags = {"detector.name": name, "detector.medgemma.model": arguments.model}
    return {key: value for key, value in flags.items() if value is not None}


def load_settings(arguments: argparse.Namespace) -> Settings:
    """Read the settings of a command that looks at a node, or acts on one.

    Raises
    ------
    ConfigError
        They cannot be used.
    """
    flags = {} if arguments.data_dir is None else {"data_dir": arguments.data_dir}
    return load(arguments.config, flags)


def make_folder(path: Path, flag: str) -> None:
    """Make the folder that a flag names, with its parents.

    Raises
    ------
    ConfigError
        There cannot be one, or this user may not write in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{flag}: cannot make the folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag}: this user may not write in {path}")


def text_epilog(*examples: str) -> str:
    """Return the epilog that shows examples."""
    heading = "example" if len(examples) == 1 else "examples"
    return "\n".join([f"{heading}:", *(f"  {example}" for example in examples)])


def count(text: str) -> int:
    """Parse how many, from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("a number from 0 is needed")
    return int(text)


def slot_number(text: str) -> int:
    """Parse the number of a worker slot, from 0."""
    if not text.isdecimal() or int(text) > LAST_SLOT:
        raise argparse.ArgumentTypeError(f"a slot is a number from 0 to {LAST_SLOT}")
    return int(text)
