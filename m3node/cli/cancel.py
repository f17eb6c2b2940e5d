"""``m3node cancel``: take back a job or a delivery, or dismiss a dead letter."""

from __future__ import annotations

import argparse
from typing import Any

from m3node.cli.acting import act, add_ids
from m3node.cli.options import add_config, add_data_dir, load_settings, text_epilog


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "cancel",
        help="take back a job or a delivery, or dismiss a dead letter",
        description="Ends a job, or takes back what waits to be sent: a job by its ID (as m3node jobs shows it), with "
        "all of its deliveries, or one delivery (DESTINATION/NAME, as m3node status --study shows it). A dead letter "
        "is dismissed: it counts as done. What a destination has is not deleted there. Exit status: 0 when all were "
        "taken back, 1 when not, 2 on wrong usage.",
        epilog=text_epilog(
            "m3node cancel 1.2.826.0.1.3680043.8.498.1.g1",
            "m3node cancel pacs/1.2.826.0.1.3680043.8.498.1.g1.report",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_ids(parser, "+")
    add_config(parser)
    add_data_dir(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    return act(
        load_settings(arguments),
        arguments.ids,
        lambda actions, run: actions.cancel_run(run),
        lambda actions, *of: actions.cancel_delivery(*of),
    )
