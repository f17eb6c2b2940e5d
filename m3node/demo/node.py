"""The node of the demonstration: ``m3node serve`` as a process of its own, with settings of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from m3node.delivery.address import Peer
from m3node.errors import M3NodeError

START_SECONDS = 60.0
STOP_SECONDS = 30.0
SCANNER = "DEMO"
"""Calling AE title of the one sender that the node knows."""

_SETTINGS = """\
data_dir = {data}

[listener]
ae_title = "M3NODE"
host = "127.0.0.1"
port = 0
receivers = 1

[[listener.callers]]
ae_title = "{scanner}"

[completeness]
quiet_seconds = 1.0

# It lives for a minute, on whatever disk is there.
[disk]
warn_free_mb = 0.0
refuse_free_mb = 0.0

[jobs]
drain_seconds = 10

[web]
enabled = false

[[destinations]]
name = "archive"
ae_title = "{archive.ae_title}"
host = "{archive.host}"
port = {archive.port}
"""


class DemoError(M3NodeError):
    """The demonstration could not go on."""


class Node:
    """A running node that sends its results to an archive; a context manager that always stops it.

    Parameters
    ----------
    folder : Path
        Its settings and its data.
    log : Path
        Where its log lines go.
    archive : Peer
        Its one destination.
    """

    def __init__(self, folder: Path, log: Path, archive: Peer) -> None:
        self.data = folder / "data"
        self.log = log
        self._ready = folder / "ready.json"
        self._settings = folder / "m3node.toml"
        # A JSON string is a TOML string, whatever stands in the path.
        data = json.dumps(str(self.data.resolve()), ensure_ascii=False)
        self._settings.write_text(_SETTINGS.format(data=data, archive=archive, scanner=SCANNER), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "m3node", "serve"]
        command += ["--config", str(self._settings), "--ready-file", str(self._ready)]
        # Settings of the user's own environment are for the user's own node.
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("M3NODE_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def peer(self) -> Peer:
        """Where it listens."""
        facts = json.loads(self._ready.read_text(encoding="utf-8"))
        return Peer(facts["ae_title"], facts["host"], int(facts["port"]))

    def check(self) -> None:
        """Do nothing while the node runs.

        Raises
        ------
        DemoError
            It has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
            raise DemoError("\n".join([f"the node ended by itself; the end of its log, {self.log}:", *lines]))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the node does not listen after {START_SECONDS:.0f} s; its log is {self.log}")
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
