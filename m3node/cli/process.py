"""What the commands share that are a process of the node: flags, settings, log, and how they are told to stop."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from m3node.cli.options import add_config, add_data_dir, text_epilog
from m3node.logs import set_up
from m3node.metrics import counting
from m3node.settings import Settings, load

STOPPING = """\
SIGTERM and Ctrl-C stop it in order with exit status 0: what is at hand has jobs.drain_seconds to be finished. Whatever
was acknowledged is on disk; work that was under way goes on at the next start.
"""


def add_process(
    subparsers: Any,
    name: str,
    handler: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    examples: Sequence[str],
    note: str,
) -> argparse.ArgumentParser:
    """Add the command of a process, without its flags.

    Parameters
    ----------
    subparsers : argparse action
        Of the ``m3node`` command.
    name : str
        The command.
    handler : callable
        Carries it out, by `run_process`.
    summary, description : str
        What ``m3node --help`` says of it, and ``m3node NAME --help``.
    examples : sequence of str
        Command lines.
    note : str
        What to know besides.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{text_epilog(*examples)}\n\n{note}\n{STOPPING}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=handler)
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what every process of the node takes."""
    add_config(parser)
    add_data_dir(parser)
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="log.level")


def add_listener_flags(parser: argparse.ArgumentParser) -> None:
    """Add what a process takes that listens."""
    parser.add_argument("--host", help="address to listen on (listener.host)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free one (listener.port)")
    parser.add_argument("--ae-title", help="our AE title (listener.ae_title)")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="JSON, written once the node listens")


def run_process(arguments: argparse.Namespace, name: str, work: Callable[[Settings, threading.Event], None]) -> int:
    """Be a process of the node until it is told to stop.

    Parameters
    ----------
    arguments : argparse.Namespace
        From a parser with the flags above.
    name : str
        What its log lines call it.
    work : callable
        Returns when the event is set; the tree that it is given can travel to other processes.
    """
    flags = {
        "data_dir": arguments.data_dir,
        "log.level": arguments.log_level,
        "listener.host": getattr(arguments, "host", None),
        "listener.port": getattr(arguments, "port", None),
        "listener.ae_title": getattr(arguments, "ae_title", None),
    }
    settings = load(arguments.config, {key: value for key, value in flags.items() if value is not None})
    settings = _portable(settings)
    set_up(settings.log, name)
    counting.start(settings, name)
    counting.process_started(name)
    stop = threading.Event()

    from m3node.jobs.node.supervisor import stop_on_signals  # noqa: PLC0415 - keeps --help and --version quick

    stop_on_signals(stop, signal.SIGTERM, signal.SIGINT)
    work(settings, stop)
    return 0


def _portable(settings: Settings) -> Settings:
    """Return the tree as a plain ``Settings`` with an absolute data folder."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    values["data_dir"] = settings.data_dir.expanduser().absolute()
    return Settings.model_construct(**values)
