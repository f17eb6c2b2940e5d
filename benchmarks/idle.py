"""Receiving while 200 connections stand idle and slow ones drip a byte a second, against receiving alone.

The sender is dcmtk's ``storescu``, as in ``receive.py``; m3node is as it is by default. A connection that m3node closes
for its silence is opened again, so that there are always as many. At most 20 % of the sender's speed may be lost, which
is 1.25 times its seconds.
"""

from __future__ import annotations

import argparse
import select
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from receive import Shown, make_certificate, make_series, node, send
from table import RatioRow, print_ratios

BAR = 1 / 0.8
DRIPPING = 10
"""Of the connections; the others say nothing."""
_REQUEST_HEAD = b"\x01\0\0\x01\0\0"
"""An association request of 64 KiB is announced, and comes a byte a second."""
_HANDSHAKE_HEAD = b"\x16\x03\x01\x40\0"
"""So does a TLS handshake."""


class Crowd(threading.Thread):
    """Connections that take room and want nothing.

    Parameters
    ----------
    port : int
        Of the node.
    count : int
        How many.
    head : bytes
        How those begin that drip.
    """

    def __init__(self, port: int, count: int, head: bytes) -> None:
        super().__init__(name="crowd", daemon=True)
        self._port = port
        self._head = head
        self._enough = threading.Event()
        self._peers = [self._open(number) for number in range(count)]
        self.opened_again = 0

    def _open(self, number: int) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        if number < DRIPPING:
            peer.sendall(self._head)
        return peer

    def run(self) -> None:
        while not self._enough.wait(1.0):
            closed = set(select.select(self._peers, [], [], 0)[0])
            for number, peer in enumerate(self._peers):
                try:
                    if peer in closed:
                        raise ConnectionError
                    if number < DRIPPING:
                        peer.sendall(b"\0")
                except OSError:
                    peer.close()
                    self._peers[number] = self._open(number)
                    self.opened_again += 1

    def leave(self) -> None:
        """Close them all."""
        self._enough.set()
        self.join()
        for peer in self._peers:
            peer.close()


@contextmanager
def crowd(port: int, count: int, head: bytes) -> Iterator[Crowd]:
    """Have a crowd before a node's port."""
    there = Crowd(port, count, head)
    there.start()
    try:
        yield there
    finally:
        there.leave()


def compare(
    folders: list[Path], scratch: Path, pairs: int, idle: int, shown: Shown | None = None
) -> tuple[list[float], list[float]]:
    """Run pairs, each into an empty folder, and count what was stored; the order changes from pair to pair."""
    sent = sum(1 for folder in folders for _ in folder.iterdir())
    head = _REQUEST_HEAD if shown is None else _HANDSHAKE_HEAD
    times: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(pairs):
        for crowded in (True, False) if pair % 2 else (False, True):
            target = scratch / "node"
            with node(target, shown) as port, crowd(port, idle, head) if crowded else nullcontext():
                times[crowded].append(send(folders, port, shown))
            stored = len(list(target.glob("spool/*/*/*.dcm")))
            if stored != sent:
                sys.exit(f"m3node stored {stored} of {sent} slices")
            shutil.rmtree(target)
    return times[True], times[False]


def main() -> int:
    """Print the table; the exit status says whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--idle", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m3node-bench-") as name:
        scratch = Path(name)
        one = make_series(scratch / "series", arguments.slices, 1)
        four = make_series(scratch / "series", arguments.slices, 4)
        shown = make_certificate(scratch)
        beside = f"beside {arguments.idle} idle, against alone"
        run = (scratch, arguments.pairs, arguments.idle)
        rows = [
            RatioRow(f"1 association, {beside}", *compare(one, *run), bar=BAR),
            RatioRow(f"4 associations, {beside}", *compare(four, *run), bar=BAR),
            RatioRow(f"1 association over TLS, {beside}", *compare(one, *run, shown), bar=BAR),
        ]
    return 0 if print_ratios(f"Receive {arguments.slices} slices of 512×512 (seconds)", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
