"""``m3node requeue``: have a failed job done again, or a dead letter sent again."""

from __future__ import annotations

import argparse
from typing import Any

from m3node.cli.acting import act, add_ids
from m3node.cli.options import add_config, add_data_dir, load_settings, text_epilog
from m3node.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "requeue",
        help="have a failed job done again, or a dead letter sent again",
        description="Puts back into its queue what had ended without success: a job (its ID as m3node jobs --failed "
        "shows it), or a delivery (DESTINATION/NAME, as m3node jobs --dead shows it). What a failed job left stays in "
        "its folder under another name. Exit status: 0 when all were put back, 1 when not, 2 on wrong usage.",
        epilog=text_epilog(
            "m3node requeue 1.2.826.0.1.3680043.8.498.1.g1",
            "m3node requeue pacs/1.2.826.0.1.3680043.8.498.1.g1.report",
            "m3node requeue --all-dead",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_ids(parser, "*")
    parser.add_argument("--all-dead", action="store_true", help="every dead letter, of all destinations")
    add_config(parser)
    add_data_dir(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    if bool(arguments.ids) == arguments.all_dead:
        raise ConfigError("requeue takes IDs, or --all-dead; m3node jobs --failed and --dead show them")
    settings = load_settings(arguments)
    ids = arguments.ids
    if arguments.all_dead:
        from m3node.jobs.ledger.views import dead_letters  # noqa: PLC0415 - keeps --help and --version quick
        from m3node.jobs.node.glance import existing_ledger  # noqa: PLC0415

        engine = existing_ledger(settings)
        try:
            ids = [f"{letter.destination}/{letter.name}" for letter in dead_letters(engine)]
        finally:
            engine.dispose()
        if not ids:
            print("there are no dead letters")
            return 0
    return act(
        settings, ids, lambda actions, run: actions.requeue_run(run), lambda actions, *of: actions.requeue_delivery(*of)
    )
