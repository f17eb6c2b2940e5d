"""``m3node config check``: shows the settings in force and what in them will surprise."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from m3node.cli.options import add_config
from m3node.settings import Settings, load

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
    warnings = tuple(find_surprises(settings))
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


def find_surprises(settings: Settings) -> Iterator[str]:
    """Say what is allowed but seldom meant.

    Yields
    ------
    str
        One sentence each: what, and which key changes it.
    """
    if not settings.listener.callers:
        yield "nobody may send: listener.callers is empty, so every association is rejected"
    if _is_loopback(settings.listener.host):
        yield (
            f"only this machine reaches the listener: listener.host is {settings.listener.host}; "
            "set it to an address of the network"
        )
    if not settings.destinations:
        yield "results are sent nowhere: destinations is empty; they stay in the data folder"
    loops = [
        destination.name
        for destination in settings.destinations
        if destination.port == settings.listener.port and _is_loopback(destination.host)
    ]
    if loops:
        yield f"results go to this node itself: destinations {', '.join(loops)} has the listener's own port"
    yield from _folder_problems("data_dir", settings.data_dir)
    if settings.watch.folder is not None and settings.watch.out is not None:
        yield from _folder_problems("watch.folder", settings.watch.folder)
        yield from _folder_problems("watch.out", settings.watch.out)
    known = sorted(point.name for point in entry_points(group="m3node.detectors"))
    if settings.detector.name not in known:
        yield f"detector.name is {settings.detector.name!r}, which is not installed; there is: {', '.join(known)}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _folder_problems(key: str, folder: Path) -> Iterator[str]:
    # A folder that is not there yet is made at start, below the nearest one that is.
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        yield f"{key} is {folder}, but {nearest} is not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield f"{key} is {folder}, and this user may not write in {nearest}"


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
