"""Ports of the loopback for what the tests start, safe with several tests at once."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, EACH, WORKERS = 15_000, 1_000, 16
"""Below 32768, where Linux begins to give ports to outgoing connections and to whoever asks for port 0."""


def _mine() -> itertools.cycle[int]:
    """The ports of this process: each pytest-xdist worker has its own, and each run of the tests starts elsewhere."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    ports = range(FIRST + worker * EACH, FIRST + (worker + 1) * EACH)
    start = os.getpid() % EACH
    return itertools.cycle([*ports[start:], *ports[:start]])


_ports = _mine()


def free_port() -> int:
    """A port that nobody listens on, and that stays so until the caller binds it, also after a restart.

    One that the kernel chose and we gave back may by then belong to a test of another worker.
    """
    for port in itertools.islice(_ports, EACH):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {FIRST} to {FIRST + WORKERS * EACH} is free")
