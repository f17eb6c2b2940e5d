"""The real ``m3node serve`` as a process of its own, for tests that talk to it over sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from m3node.delivery.address import Peer
from m3node.evaluation.ct_writer import write_ct_series
from m3node.evaluation.phantom import SMALL, abdomen_phantom
from m3node.layout import DataLayout


class ServingNode:
    """A running node, and the files that it leaves."""

    def __init__(self, peer: Peer, layout: DataLayout, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.peer = peer
        self.layout = layout
        self.log = log
        self.process = process

    def runs(self) -> list[str]:
        """Names of the finished runs, and of the recorded rejections."""
        done = [*self.layout.results.glob("*/run.json"), *self.layout.results.glob("*/findings.json")]
        return sorted({path.parent.name for path in done})

    def manifests(self) -> list[str]:
        return sorted(path.stem for path in self.layout.manifests.glob("*.json"))

    def spooled(self) -> set[str]:
        """SOP Instance UIDs of everything that was acknowledged."""
        return {path.name.removesuffix(".dcm") for path in self.layout.spool.rglob("*.dcm")}

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the node ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{what} did not happen:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)


@contextmanager
def serving(
    folder: Path, callers: Sequence[str], destinations: Sequence[tuple[str, Peer]] = (), *, quiet_seconds: float = 1.0
) -> Iterator[ServingNode]:
    """Start a node on a free port; stop it in the end and insist that it stops in order."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"data_dir = {json.dumps(str(folder / 'data'))}",
        "[listener]",
        "port = 0",
        "receivers = 1",
        *(f'[[listener.callers]]\nae_title = "{title}"' for title in callers),
        "[completeness]",
        f"quiet_seconds = {quiet_seconds}",
        "[delivery]",
        "retry_first_seconds = 0.5",
    ]
    for name, peer in destinations:
        lines += ["[[destinations]]", f'name = "{name}"', f'ae_title = "{peer.ae_title}"', f'host = "{peer.host}"']
        lines += [f"port = {peer.port}"]
    (folder / "m3node.toml").write_text("\n".join(lines) + "\n")
    ready, log = folder / "ready.json", folder / "node.log"
    command = [sys.executable, "-m", "m3node", "serve", "--config", str(folder / "m3node.toml")]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")},
        )
    node = ServingNode(Peer("M3NODE", "127.0.0.1", 0), DataLayout(folder / "data"), log, process)
    try:
        node.until(ready.exists, "listening")
        node.peer = Peer("M3NODE", "127.0.0.1", int(json.loads(ready.read_text())["port"]))
        yield node
        process.terminate()
        assert process.wait(60) == 0, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()


def small_series(folder: Path, seed: int) -> tuple[str, set[str]]:
    """Write a small phantom as CT; return its Study Instance UID and its SOP Instance UIDs."""
    import pydicom

    phantom = abdomen_phantom(seed=seed, **SMALL)
    files = write_ct_series(folder, np.asarray(phantom.hu), phantom.geometry, seed=("e2e", seed))
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    return str(headers[0].StudyInstanceUID), {str(header.SOPInstanceUID) for header in headers}
