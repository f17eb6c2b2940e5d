"""``m3node serve``: the node, all of its roles on this machine."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from m3node.cli.process import add_flags, add_listener_flags, add_process, run_process


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "serve",
        handle,
        summary="receive CT series by DICOM or from a watched folder, and send results back",
        description="Runs the node: listener, workers (jobs.slots of them), delivery and watched folder. The same "
        "roles run apart as m3node listen, worker, deliver and watch.",
        examples=(
            "m3node serve --config m3node.toml",
            "m3node serve --port 11112 --data-dir /srv/m3node",
        ),
        note="Callers (listener.callers) and destinations are named in the settings file. A role that dies "
        "is started again.",
    )
    add_flags(parser)
    add_listener_flags(parser)


def handle(arguments: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""
    from m3node.jobs.node.service import serve  # noqa: PLC0415 - keeps --help and --version quick

    return run_process(arguments, "node", partial(serve, ready_file=arguments.ready_file))
