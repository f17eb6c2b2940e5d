"""``m3node deliver``: the role that sends results."""

from __future__ import annotations

import argparse
from typing import Any

from m3node.cli.process import add_flags, add_process, run_process


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "deliver",
        handle,
        summary="send results only: one role of the node, as a process of its own",
        description="Sends result objects to their destinations, and again until they are there.",
        examples=("m3node deliver --config /etc/m3node.toml",),
        note="One for a data folder: it keeps the associations to the destinations.",
    )
    add_flags(parser)


def handle(arguments: argparse.Namespace) -> int:
    """Deliver until told to stop."""
    from m3node.jobs.node.activity import audited  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.node.roles import deliver  # noqa: PLC0415

    return run_process(arguments, "deliver", audited("deliver", deliver))
