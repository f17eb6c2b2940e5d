"""The ``m3node`` command: one parser, one subcommand a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from m3node import __version__
from m3node.errors import ConfigError, M3NodeError
from m3node.logs import to_terminal

COMMANDS: tuple[str, ...] = (
    *("run", "serve", "status", "jobs", "requeue", "cancel", "takeover", "audit"),
    *("listen", "worker", "deliver", "watch", "web"),
    *("echo", "send", "config", "model", "demo", "evaluate", "phantoms", "attention"),
)
"""Modules below ``m3node.cli`` that add a subcommand; imported on demand, so that ``--version`` is quick."""


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """Build the parser; each command module has ``add_parser(subparsers)`` and sets ``handler``.

    Parameters
    ----------
    command : str
        The one command that will be parsed, so that the modules of the others are not imported; all when it is none.
    """
    from importlib import import_module  # noqa: PLC0415 - only needed here

    parser = argparse.ArgumentParser(prog="m3node", description="Finds liver lesions in CT; answers in DICOM.")
    parser.add_argument("--version", action="version", version=f"m3node {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in (command,) if command in COMMANDS else COMMANDS:
        import_module(f"m3node.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        The exit status: 0 success, 1 failure, 2 usage or settings, 3 nothing eligible.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser(words[0] if words else "").parse_args(words)
    if argv is None:
        # A process of our own. Without it, what the DICOM libraries say goes to the terminal, values included.
        to_terminal("m3node")
    try:
        return int(arguments.handler(arguments))
    except ConfigError as error:
        print(f"m3node: {error}", file=sys.stderr)
        return 2
    except M3NodeError as error:
        print(f"m3node: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, or a folder that went away: nothing that a traceback would explain better.
        print(f"m3node: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
