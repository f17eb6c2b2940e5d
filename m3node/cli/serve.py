"""``m3node serve``: the node, all of its roles on this machine."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from m3node.cli.options import text_epilog
from m3node.cli.process import STOPPING, add_flags, add_listener_flags, run_process

EPILOG = f"""\
{
    text_epilog(
        "m3node serve --config m3node.toml",
        "m3node serve --port 11112 --data-dir /srv/m3node",
    )
}

Callers (listener.callers) and destinations are named in the settings file. A role that dies is started again.
{STOPPING}"""


def add_parser(subparsers: Any) -> None:
    """Add the ``serve`` subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="receive CT series by DICOM or from a watched folder, and send results back",
        description="Runs the node: listener, workers (jobs.slots of them), delivery and watched folder. The same "
        "roles run apart as m3node listen, worker, deliver and watch.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    add_listener_flags(parser)
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""
    from m3node.jobs.node.service import serve  # noqa: PLC0415 - the other commands need none of it

    return run_process(arguments, "node", partial(serve, ready_file=arguments.ready_file))
