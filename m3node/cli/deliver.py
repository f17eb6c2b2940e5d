"""``m3node deliver``: the role that sends results."""

from __future__ import annotations

import argparse
import threading
from typing import Any

from m3node.cli.options import text_epilog
from m3node.cli.process import STOPPING, add_flags, run_process
from m3node.settings import Settings

EPILOG = f"""\
{text_epilog("m3node deliver --config /etc/m3node.toml")}

One for a data folder: it keeps the associations to the destinations.
{STOPPING}"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "deliver",
        help="send results only: one role of the node, as a process of its own",
        description="Sends result objects to their destinations, and again until they are there.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    """Deliver until told to stop."""
    from m3node.jobs.node.roles import deliver  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.node.service import portable  # noqa: PLC0415

    def run(settings: Settings, stop: threading.Event) -> None:
        deliver(portable(settings), stop)

    return run_process(arguments, "deliver", run)
