"""``m3node watch``: the role that serves a watched folder."""

from __future__ import annotations

import argparse
import threading
from typing import Any

from m3node.cli.options import text_epilog
from m3node.cli.process import STOPPING, add_flags, run_process
from m3node.settings import Settings

EPILOG = f"""\
{text_epilog("m3node watch --config /etc/m3node.toml")}

watch.folder and watch.out name the folders; results of what is dropped appear as files, and are sent nowhere.
{STOPPING}"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "watch",
        help="serve the watched folder only: one role of the node, as a process of its own",
        description="Processes what is dropped into watch.folder, as m3node run would, into watch.out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    """Watch until told to stop."""
    from m3node.jobs.node.roles import watch  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.node.service import portable  # noqa: PLC0415

    def run(settings: Settings, stop: threading.Event) -> None:
        watch(portable(settings), stop)

    return run_process(arguments, "watch", run)
