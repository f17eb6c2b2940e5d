"""``m3node status``: is everything alive, what is being done, what is stuck, and where."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from m3node.cli.options import add_config, add_data_dir, load_settings, text_epilog
from m3node.errors import M3NodeError

if TYPE_CHECKING:
    from m3node.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "status",
        help="show what the node does, and what is stuck",
        description="Shows the roles that are alive, the jobs and deliveries that wait, run or failed, the disk, the "
        "database, and what of the node's health wants a look; or all that is known of one study. Also while the node "
        "is down. Exit status: 0, 1 when the database cannot be used or the study is unknown, 2 on wrong usage or "
        "settings.",
        epilog=text_epilog(
            "m3node status --config /etc/m3node.toml",
            "m3node status --study 1.2.826.0.1.3680043.8.498.1",
            "m3node status --json | jq '.roles[] | select(.running | not) | .name'",
            "m3node status --json | jq -e .ready",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(parser)
    add_data_dir(parser)
    parser.add_argument("--study", metavar="UID", help="all about the study of this Study Instance UID")
    parser.add_argument("--json", action="store_true", help="print JSON; times are seconds since 1970, UTC")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out.

    Raises
    ------
    M3NodeError
        The study is unknown, or the database cannot be used for it.
    """
    settings = load_settings(arguments)
    if arguments.study:
        return _show_study(settings, arguments.study, as_json=arguments.json)
    from m3node.cli.health_text import health_lines  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.cli.showing import console  # noqa: PLC0415
    from m3node.cli.status_text import glance_lines  # noqa: PLC0415
    from m3node.health.checks import checks_of, ready  # noqa: PLC0415
    from m3node.jobs.node.glance import look, to_json  # noqa: PLC0415

    glance = look(settings, time.time())
    checks = checks_of(settings, glance)
    if arguments.json:
        health = {"ready": ready(checks), "checks": [asdict(item) for item in checks]}
        print(json.dumps(to_json(glance) | health, indent=1))
    else:
        out = console()
        for line in (*glance_lines(glance), *health_lines(checks)):
            out.print(line)
    return 1 if glance.trouble else 0


def _show_study(settings: Settings, uid: str, *, as_json: bool) -> int:
    from m3node.cli.showing import console  # noqa: PLC0415
    from m3node.cli.status_text import study_lines  # noqa: PLC0415
    from m3node.jobs.ledger import view_types, views  # noqa: PLC0415
    from m3node.jobs.node.glance import existing_ledger  # noqa: PLC0415

    engine = existing_ledger(settings)
    try:
        study = views.study(engine, uid)
    finally:
        engine.dispose()
    if study is None:
        raise M3NodeError(f"nothing is known of a study {uid}; what has just come in is known after some seconds")
    if as_json:
        print(json.dumps({"schema": "m3node.study/1", **view_types.to_json(study)}, indent=1))
        return 0
    out = console()
    for line in study_lines(study, time.time()):
        out.print(line)
    return 0
