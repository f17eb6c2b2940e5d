"""``m3node echo``: does a peer answer, and does it know us?"""

from __future__ import annotations

import argparse
import json
from typing import Any

from m3node.cli.options import text_epilog
from m3node.cli.peer import add_peer, call_of


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "echo",
        help="verify a DICOM peer (C-ECHO)",
        description="Opens an association and sends C-ECHO. Exit status: 0 when the peer answers with success, 1 when "
        "not, 2 on wrong usage.",
        epilog=text_epilog(
            "m3node echo ORTHANC@127.0.0.1:4242",
            "m3node echo PACS@[fd00::7]:104 --calling M3NODE",
            "m3node echo PACS@pacs.example.org:2762 --ca-file ca.pem --certificate m3node.pem --key m3node.key",
            "m3node echo pacs --config /etc/m3node.toml",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        The peer cannot be asked; `m3node.cli.main` makes it exit status 1.
    """
    from m3node.delivery.echo import echo  # noqa: PLC0415 - keeps --help and --version quick

    call = call_of(arguments)
    answer = echo(call.peer, call.calling_ae_title, call.timeouts)
    if arguments.json:
        print(json.dumps({"peer": str(call.peer), "status": answer.status, "seconds": round(answer.seconds, 3)}))
    elif answer.status == 0:
        print(f"{call.peer} answers ({answer.seconds * 1000:.0f} ms)")
    else:
        print(f"{call.peer} answers with status 0x{answer.status:04X}")
    return 0 if answer.status == 0 else 1
