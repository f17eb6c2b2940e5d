"""What the commands that call a DICOM peer share."""

from __future__ import annotations

import argparse

from m3node.delivery.address import Peer, Timeouts, parse_ae_title, parse_peer
from m3node.errors import ConfigError


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Add the peer, our own AE title and the waiting times."""
    parser.add_argument(
        "peer", type=_peer, metavar="AE@HOST:PORT", help="whom to call, for example ORTHANC@127.0.0.1:4242"
    )
    parser.add_argument(
        "--calling", type=_title, default="M3NODE", metavar="AE", help="our own AE title (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for each answer (default: %(default)g)",
    )


def timeouts(arguments: argparse.Namespace) -> Timeouts:
    """Return the waiting times; connecting never gets more than the default."""
    return Timeouts(connect=min(Timeouts().connect, arguments.timeout), response=arguments.timeout)


def _peer(text: str) -> Peer:
    try:
        return parse_peer(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _title(text: str) -> str:
    try:
        return parse_ae_title(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from error
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} seconds cannot be waited; give a number above 0")
    return seconds
