"""``m3node serve``: the node, all of its roles on this machine."""

from __future__ import annotations

import argparse
import threading
from functools import partial
from pathlib import Path
from typing import Any

from m3node.cli.process import add_flags, add_listener_flags, add_process, run_process
from m3node.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_process(
        subparsers,
        "serve",
        handle,
        summary="receive CT series by DICOM or from a watched folder, and send results back",
        description="Runs the node: listener, workers (jobs.slots of them), delivery, watched folder and status page. "
        "The same roles run apart as m3node listen, worker, deliver, watch and web.",
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
    return run_process(arguments, "node", partial(_serve, ready_file=arguments.ready_file))


def _serve(settings: Settings, stop: threading.Event, *, ready_file: Path | None) -> None:
    from m3node.jobs.node.service import serve  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.web.role import web_role  # noqa: PLC0415

    beside = (web_role(),) if settings.web.enabled else ()
    serve(settings, stop, ready_file=ready_file, beside=beside)
