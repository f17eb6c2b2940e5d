"""``m3node serve``: the node."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

from m3node.cli.options import add_config
from m3node.logs import set_up
from m3node.settings import load

EPILOG = """\
example:
  m3node serve --config m3node.toml
  m3node serve --port 11112 --data-dir /srv/m3node

Callers (listener.callers) and destinations are named in the settings file. SIGTERM and Ctrl-C stop the node in order
with exit status 0. Whatever was acknowledged is on disk; work that was under way goes on at the next start.
"""


def add_parser(subparsers: Any) -> None:
    """Add the ``serve`` subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="receive CT series by DICOM or from a watched folder, and send results back",
        description="Runs the node: listener, completeness, processing and delivery.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (listener.host)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free one (listener.port)")
    parser.add_argument("--ae-title", help="our AE title (listener.ae_title)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where everything is kept (data_dir)")
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="log.level")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="JSON, written once the node listens")
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""
    from m3node.jobs.node.service import serve  # noqa: PLC0415 - the other commands need none of it
    from m3node.jobs.node.supervisor import stop_on_signals  # noqa: PLC0415

    flags = {
        "listener.host": arguments.host,
        "listener.port": arguments.port,
        "listener.ae_title": arguments.ae_title,
        "data_dir": arguments.data_dir,
        "log.level": arguments.log_level,
    }
    settings = load(arguments.config, {name: value for name, value in flags.items() if value is not None})
    set_up(settings.log.level, "node")
    stop = threading.Event()
    stop_on_signals(stop, signal.SIGTERM, signal.SIGINT)
    serve(settings, stop, ready_file=arguments.ready_file)
    return 0
