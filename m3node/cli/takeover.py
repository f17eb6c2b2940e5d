"""``m3node takeover``: give the jobs of a dead worker slot to the others."""

from __future__ import annotations

import argparse
from typing import Any

from m3node.cli.acting import actions_of
from m3node.cli.options import add_config, add_data_dir, load_settings, slot_number, text_epilog


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "takeover",
        help="give the jobs of a dead worker slot to the other workers",
        description="Puts what a worker slot had begun back into the queue; another slot goes on after the last "
        "finished step. Not needed when the slot is started again: it goes on by itself. A slot that is alive is "
        "refused. Exit status: 0, 1 when refused, 2 on wrong usage.",
        epilog=text_epilog("m3node takeover 1"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("slot", type=slot_number, metavar="SLOT", help="number of the slot, from 0")
    add_config(parser)
    add_data_dir(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out.

    Raises
    ------
    Refused
        The slot is alive; `m3node.cli.main` makes it exit status 1.
    """
    with actions_of(load_settings(arguments)) as actions:
        print(actions.take_over(arguments.slot))
    return 0
