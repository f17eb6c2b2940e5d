"""``m3node send``: give DICOM files to a peer."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from m3node.cli.options import text_epilog
from m3node.cli.peer import add_peer, call_of
from m3node.cli.progress import show_progress
from m3node.delivery.address import Peer

SHOWN = 20
"""Failures and skipped files that are named; ``--json`` names all."""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "send",
        help="send DICOM files to a peer (C-STORE)",
        description="Sends a DICOM file, or every one in a folder and below it, each in the transfer syntax that it "
        "has and byte for byte. Exit status: 0 when all were stored, 1 when some were not, or there was none, 2 on "
        "wrong usage.",
        epilog=text_epilog(
            "m3node send series/ M3NODE@127.0.0.1:11112 --calling SCANNER",
            "m3node send series/ M3NODE@127.0.0.1:2762 --calling SCANNER --ca-file ca.pem --certificate scanner.pem",
            "m3node send results/ pacs --config /etc/m3node.toml",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a DICOM file, or a folder of them")
    add_peer(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out.

    Raises
    ------
    ConfigError
        No such destination, or flags that contradict each other.
    DeliveryError
        There is no such path, or the peer cannot be reached; `m3node.cli.main` makes it exit status 1.
    """
    from m3node.delivery.send import find_sendable, send  # noqa: PLC0415 - keeps --help and --version quick

    call = call_of(arguments)
    found = find_sendable(arguments.path)
    with show_progress(quiet=arguments.json) as progress:
        shipment = send(
            found.items,
            call.peer,
            call.calling_ae_title,
            call.timeouts,
            lambda done, total: progress("sending", done, total),
        )
    if arguments.json:
        print(json.dumps(_summary(arguments.path, call.peer, found, shipment), indent=1))
    else:
        _print(arguments.path, call.peer, found, shipment)
    return 0 if found.items and not shipment.failed else 1


def _summary(path: Path, peer: Peer, found: Any, shipment: Any) -> dict[str, Any]:
    return {
        "peer": str(peer),
        "stored": shipment.stored,
        "failed": [
            {
                "file": _relative(item.path, path),
                "sop_instance_uid": item.sop_instance_uid,
                "status": sent.status,
                "message": sent.message,
            }
            for item, sent in shipment.failed
        ],
        "skipped": [{"file": _relative(skipped.path, path), "reason": skipped.reason} for skipped in found.skipped],
    }


def _print(path: Path, peer: Peer, found: Any, shipment: Any) -> None:
    print(f"{shipment.stored} of {len(found.items)} objects stored by {peer}")
    lines = [
        *(f"not stored: {_relative(item.path, path)}: {sent.message}" for item, sent in shipment.failed),
        *(f"not sent: {_relative(item.path, path)}: {item.reason}" for item in found.skipped),
    ]
    for line in lines[:SHOWN]:
        print(line, file=sys.stderr)
    if len(lines) > SHOWN:
        print(f"and {len(lines) - SHOWN} more; --json names all", file=sys.stderr)


def _relative(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()
