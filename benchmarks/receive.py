"""Receiving 500 CT slices of 512×512: m3node, durable, against dcmtk's ``storescp``.

Both are sent to by dcmtk's ``storescu`` with ``TCP_NODELAY=1`` on both ends; pairs of runs alternate, so that whatever
else the machine does slows both alike. ``storescp`` neither synchronises to disk nor looks into the data set.
Both write below the folder for temporary files (``TMPDIR``), which must be a disk: on a tmpfs, synchronising is free.

Over TLS both ends show the same certificate, on an elliptic curve; ``storescu`` takes TLS 1.3 of both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from m3node.evaluation.ct_writer import axial_geometry, write_ct_series
from m3node.intake.receive.acceptor import serve_associations
from m3node.intake.receive.ports import Ports
from m3node.settings import Caller, ListenerSettings, ListenerTls, LogSettings, Settings
from table import RatioRow, print_ratios

SIDE = 512
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def make_series(folder: Path, slices: int, parts: int) -> list[Path]:
    """Write the slices, in as many folders as there will be associations."""
    noise = np.random.default_rng(0).integers(-200, 300, (SIDE, SIDE), dtype=np.int16)
    each = slices // parts
    folders = []
    for part in range(parts):
        hu = np.broadcast_to(noise, (each, SIDE, SIDE))
        target = folder / f"{parts}-{part}"
        write_ct_series(target, hu, axial_geometry(hu.shape, (1.0, 0.7, 0.7)), seed=("receive", parts, part))
        folders.append(target)
    return folders


@dataclass(frozen=True)
class Shown:
    """A certificate that signs itself, and its key."""

    certificate: Path
    key: Path

    @property
    def options(self) -> list[str]:
        """How dcmtk's programs are told to show it, and to trust it."""
        return ["+tls", str(self.key), str(self.certificate), "+cf", str(self.certificate)]

    @property
    def settings(self) -> ListenerTls:
        """The same for m3node."""
        return ListenerTls(port=0, certificate_file=self.certificate, key_file=self.key, ca_file=self.certificate)


def make_certificate(folder: Path) -> Shown:
    """Make one with OpenSSL."""
    shown = Shown(folder / "certificate.pem", folder / "key.pem")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(shown.key), "-out", str(shown.certificate)]
    openssl = shutil.which("openssl") or sys.exit("openssl is missing")
    subprocess.run([openssl, *new, *name, *files], check=True, capture_output=True)
    return shown


def send(folders: list[Path], port: int, shown: Shown | None = None) -> float:
    """Send each folder on an association of its own, all at once; return the seconds until the last has ended."""
    over = shown.options if shown is not None else []
    storescu = shutil.which("storescu") or sys.exit("storescu (dcmtk) is missing")
    begin = time.perf_counter()
    senders = [
        subprocess.Popen(
            [storescu, *over, "-aec", "M3NODE", "+sd", "127.0.0.1", str(port), str(folder)], env=ENVIRONMENT
        )
        for folder in folders
    ]
    statuses = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - begin
    if any(statuses):
        sys.exit("a sender failed")
    return seconds


@contextmanager
def node(folder: Path, shown: Shown | None = None) -> Iterator[int]:
    """Run m3node's receiver as it is by default; over TLS where there is a certificate."""
    tls = shown.settings if shown is not None else ListenerTls()
    listener = ListenerSettings(port=0, callers=(Caller(ae_title="STORESCU"),), tls=tls)
    settings = Settings(data_dir=folder, listener=listener, log=LogSettings(level="WARNING"))
    stop, started, ports = threading.Event(), threading.Event(), []

    def ready(bound: Ports) -> None:
        ports.append(bound.plain if shown is None else bound.tls)
        started.set()

    acceptor = threading.Thread(target=serve_associations, args=(settings,), kwargs={"ready": ready, "stop": stop})
    acceptor.start()
    try:
        if not started.wait(timeout=60):
            sys.exit("m3node's receiver does not start")
        yield ports[0]
    finally:
        stop.set()
        acceptor.join()


@contextmanager
def storescp(folder: Path, options: Sequence[str]) -> Iterator[int]:
    """Run dcmtk's receiver."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("storescp") or sys.exit("storescp (dcmtk) is missing")
    process = subprocess.Popen([program, *options, "-od", str(folder), str(port)], env=ENVIRONMENT)
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("the rival does not listen")


def compare(
    folders: list[Path], scratch: Path, pairs: int, options: Sequence[str] = (), *, shown: Shown | None = None
) -> tuple[list[float], list[float]]:
    """Run pairs, each into an empty folder, and count what was stored."""
    sent = sum(1 for folder in folders for _ in folder.iterdir())
    times: dict[str, list[float]] = {"m3node": [], "storescp": []}
    receivers = (
        ("m3node", partial(node, shown=shown), "spool/*/*/*.dcm"),
        ("storescp", partial(storescp, options=[*options, *(shown.options if shown is not None else [])]), "*"),
    )
    for _ in range(pairs):
        for name, receiver, files in receivers:
            target = scratch / name
            with receiver(target) as port:
                times[name].append(send(folders, port, shown))
            stored = sum(path.stat().st_size > SIDE * SIDE * 2 for path in target.glob(files))
            if stored != sent:
                sys.exit(f"{name} stored {stored} of {sent} slices")
            shutil.rmtree(target)
    return times["m3node"], times["storescp"]


def main() -> int:
    """Print the table; the exit status says whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m3node-bench-") as name:
        scratch = Path(name)
        one = make_series(scratch / "series", arguments.slices, 1)
        four = make_series(scratch / "series", arguments.slices, 4)
        shown = make_certificate(scratch)
        rows = [
            RatioRow("1 association, against storescp", *compare(one, scratch, arguments.pairs), bar=6.0),
            RatioRow(
                "4 associations, against storescp --fork", *compare(four, scratch, arguments.pairs, ["--fork"]), bar=6.0
            ),
            RatioRow(
                "1 association over TLS, against storescp +tls",
                *compare(one, scratch, arguments.pairs, shown=shown),
                bar=6.0,
            ),
        ]
    return 0 if print_ratios(f"Receive {arguments.slices} slices of 512×512 (seconds)", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
