"""``m3node listen``: the role that receives."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from m3node.cli.process import add_flags, add_listener_flags, add_process, run_process


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "listen",
        handle,
        summary="receive only: one role of the node, as a process of its own",
        description="Receives by DICOM and decides when a series is complete; m3node worker and m3node deliver do the "
        "rest, here or on other machines with the same data folder and database.",
        examples=(
            "m3node listen --config /etc/m3node.toml",
            "m3node listen --config /etc/m3node.toml --port 11112",
        ),
        note="One for a data folder. It also hands complete series over to the workers, and keeps the ledger and "
        "the disk in order.",
    )
    add_flags(parser)
    add_listener_flags(parser)


def handle(arguments: argparse.Namespace) -> int:
    """Listen until told to stop."""
    from m3node.jobs.node.service import listen  # noqa: PLC0415 - keeps --help and --version quick

    return run_process(arguments, "listen", partial(listen, ready_file=arguments.ready_file))
