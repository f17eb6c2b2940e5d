"""``m3node web``: the role that is the status page."""

from __future__ import annotations

import argparse
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

from m3node.cli.process import add_flags, add_process, run_process
from m3node.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "web",
        handle,
        summary="serve the status page only: one role of the node, as a process of its own",
        description="Serves the status page, /livez, /readyz and /metrics of the node whose data folder it shares.",
        examples=("m3node web --config /etc/m3node.toml",),
        note="Part of m3node serve where web.enabled is set; there is one for a data folder.",
    )
    add_flags(parser)
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="JSON, written once the page is served")


def handle(arguments: argparse.Namespace) -> int:
    """Serve the page until told to stop."""
    from m3node.jobs.node.activity import audited  # noqa: PLC0415 - keeps --help and --version quick

    return run_process(arguments, "web", audited("web", partial(_serve, ready_file=arguments.ready_file)))


def _serve(settings: Settings, stop: threading.Event, *, ready_file: Path | None) -> None:
    from m3node.jobs.node.ready import write_ready  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.web.role import web  # noqa: PLC0415

    def report(port: object) -> None:
        if ready_file is not None:
            write_ready(ready_file, {"host": settings.web.host, "web_port": port, "pid": os.getpid()})

    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    web(settings, stop, report)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
