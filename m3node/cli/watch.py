"""``m3node watch``: the role that serves a watched folder."""

from __future__ import annotations

import argparse
from typing import Any

from m3node.cli.process import add_flags, add_process, run_process


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "watch",
        handle,
        summary="serve the watched folder only: one role of the node, as a process of its own",
        description="Processes what is dropped into watch.folder, as m3node run would, into watch.out.",
        examples=("m3node watch --config /etc/m3node.toml",),
        note="watch.folder and watch.out name the folders; results of what is dropped appear as files, and "
        "are sent nowhere.",
    )
    add_flags(parser)


def handle(arguments: argparse.Namespace) -> int:
    """Watch until told to stop."""
    from m3node.jobs.node.activity import audited  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.node.roles import watch  # noqa: PLC0415

    return run_process(arguments, "watch", audited("watch", watch))
