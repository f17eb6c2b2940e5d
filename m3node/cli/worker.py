"""``m3node worker``: the role that finds lesions."""

from __future__ import annotations

import argparse
import threading
from typing import Any

from m3node.cli.options import slot_number
from m3node.cli.process import add_flags, add_process, run_process
from m3node.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "worker",
        handle,
        summary="process only: one worker slot, as a process of its own",
        description="Holds a worker slot, one for each GPU: loads the detector, then processes one series at a time. "
        "A second worker on the same slot is refused.",
        examples=(
            "m3node worker --slot 0 --config /etc/m3node.toml",
            "CUDA_VISIBLE_DEVICES=1 m3node worker --slot 1 --config /etc/m3node.toml",
        ),
        note="Slots of all machines that share a data folder differ. What the slot had begun before goes on first.",
    )
    parser.add_argument("--slot", type=slot_number, required=True, metavar="N", help="number of the slot, from 0")
    add_flags(parser)


def handle(arguments: argparse.Namespace) -> int:
    """Work until told to stop."""
    from m3node.jobs.node.activity import audited  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.node.roles import work  # noqa: PLC0415

    def run(settings: Settings, stop: threading.Event) -> None:
        work(settings, arguments.slot, stop)

    name = f"worker-{arguments.slot}"
    return run_process(arguments, name, audited(name, run))
