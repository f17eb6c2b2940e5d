"""``m3node jobs``: runs and dead letters, one by one, with their IDs."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from m3node.cli.options import add_config, add_data_dir, load_settings, text_epilog

LIMIT = 50


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "jobs",
        help="list jobs or dead letters, with their IDs",
        description="Lists jobs, a generation of a series each: those that have not ended, and then the latest that "
        "have. The first line of each is the ID that m3node requeue and m3node cancel take. Exit status: 0, 1 when "
        "the database cannot be used, 2 on wrong usage or settings.",
        epilog=text_epilog(
            "m3node jobs --failed",
            "m3node jobs --dead",
            "m3node jobs --queued --json | jq -r '.jobs[].run'",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    add_data_dir(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--failed", action="store_true", help="jobs that ended with an error of ours")
    which.add_argument("--running", action="store_true", help="jobs that a worker is at")
    which.add_argument("--queued", action="store_true", help="jobs that wait for a worker, or for disk or memory")
    which.add_argument("--dead", action="store_true", help="deliveries that were refused or given up")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help="show so many (default: %(default)s; 0: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; times are seconds since 1970, UTC")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out.

    Raises
    ------
    DatabaseError
        The database cannot be used; `m3node.cli.main` makes it exit status 1.
    """
    from m3node.cli.showing import console, delivery_lines, run_lines  # noqa: PLC0415 - keeps --help quick
    from m3node.jobs.ledger import view_types, views  # noqa: PLC0415
    from m3node.jobs.ledger.states import RUN_ENDS, RunState  # noqa: PLC0415
    from m3node.jobs.node.glance import existing_ledger  # noqa: PLC0415

    limit = arguments.limit if arguments.limit > 0 else None
    waiting = (RunState.WAITING, RunState.QUEUED)
    wanted: tuple[tuple[RunState, ...], ...] = ((RunState.RUNNING,), waiting, tuple(RUN_ENDS))
    if arguments.failed:
        wanted = ((RunState.FAILED,),)
    elif arguments.running:
        wanted = ((RunState.RUNNING,),)
    elif arguments.queued:
        wanted = (waiting,)
    engine = existing_ledger(load_settings(arguments))
    dead: tuple[view_types.DeliveryView, ...] = ()
    runs: tuple[view_types.RunView, ...] = ()
    try:
        if arguments.dead:
            dead = views.dead_letters(engine)[:limit]
        else:
            runs = tuple(found for states in wanted for found in views.runs(engine, states, limit))[:limit]
    finally:
        engine.dispose()
    if arguments.json:
        key, items = ("dead", dead) if arguments.dead else ("jobs", runs)
        print(json.dumps({"schema": "m3node.jobs/1", key: [view_types.to_json(item) for item in items]}, indent=1))
        return 0
    out = console()
    now = time.time()
    for lines in (*(run_lines(item, now) for item in runs), *(delivery_lines(item, now) for item in dead)):
        for line in lines:
            out.print(line)
    count = len(runs) + len(dead)
    if not count:
        out.print("none")
    elif count == limit:
        out.print(f"perhaps more: --limit {2 * count} shows twice as many")
    return 0
