"""What the commands share that change what the node has to do: IDs, and what became of each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from m3node.errors import DatabaseError, M3NodeError
from m3node.settings import Settings

if TYPE_CHECKING:
    from m3node.jobs.engine.actions import Actions


def add_ids(parser: argparse.ArgumentParser, count: Literal["*", "+"]) -> None:
    """Add the IDs of jobs and deliveries."""
    parser.add_argument("ids", nargs=count, metavar="ID", help="a job, or DESTINATION/NAME for a delivery")


@contextmanager
def actions_of(settings: Settings) -> Iterator[Actions]:
    """Give what can be done with a node that has run on the data folder."""
    from m3node.jobs.engine.actions import Actions  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.engine.dispatch import Dispatcher  # noqa: PLC0415
    from m3node.jobs.ledger.notes import Ledger  # noqa: PLC0415
    from m3node.jobs.node.glance import existing_ledger  # noqa: PLC0415

    engine = existing_ledger(settings)
    dispatcher = Dispatcher(settings)
    try:
        yield Actions(settings, dispatcher, Ledger(engine))
    finally:
        dispatcher.close()
        engine.dispose()


def act(
    settings: Settings,
    ids: Sequence[str],
    on_run: Callable[[Actions, str], str],
    on_delivery: Callable[[Actions, str, str], str],
) -> int:
    """Do something with each of some jobs and deliveries, and say what; return the exit status.

    One that cannot be done keeps none of the others from it.
    """
    failed = False
    with actions_of(settings) as actions:
        for item in ids:
            destination, slash, name = item.partition("/")
            try:
                print(on_delivery(actions, destination, name) if slash else on_run(actions, item))
            except DatabaseError as error:
                # The files are changed first, and they are what counts.
                print(f"m3node: {item}: takes effect when the database is there again: {error}", file=sys.stderr)
                failed = True
            except M3NodeError as error:
                print(f"m3node: {item}: {error}", file=sys.stderr)
                failed = True
    return 1 if failed else 0
