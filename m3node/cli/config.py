"""``m3node config check``: shows the settings in force and what in them will surprise."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from m3node.cli.options import add_config
from m3node.cli.surprises import find_surprises
from m3node.settings import Settings, config_file, load

EPILOG = """\
example:
  m3node config check --config /etc/m3node.toml

The settings come from the defaults, the TOML file (--config, or M3NODE_CONFIG), the environment
(M3NODE_SECTION__KEY) and the flags, later ones winning. Exit status: 0 when they can be used, 2 when not.
"""


def add_parser(subparsers: Any) -> None:
    """Add ``config`` with its one action, ``check``."""
    config = subparsers.add_parser("config", help="look at the settings")
    actions = config.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="check the settings, and show those in force",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(check)
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the effective tree and the warnings.

    Raises
    ------
    ConfigError
        The settings cannot be used; `m3node.cli.main` makes it exit status 2.
    """
    settings = load(arguments.config)
    warnings = tuple(find_surprises(settings, config_file(arguments.config)))
    tree = settings.model_dump(mode="json")
    if arguments.json:
        print(json.dumps({"settings": tree, "warnings": warnings}, indent=2, ensure_ascii=False))
        return 0
    defaults = Settings.model_construct().model_dump(mode="json")
    unchanged = dict(_leaves(defaults))
    for key, value in _leaves(tree):
        mark = " " if unchanged.get(key) == value else "*"
        print(f"{mark} {key} = {json.dumps(value, ensure_ascii=False)}")
    print("\n* differs from the default")
    for warning in warnings:
        print(f"warning: {warning}")
    return 0


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
