"""A node of our own for the tests: the real ``m3node serve`` on a free port, started, watched, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from m3node.intake.keeper.index import Index, series_files, spooled_series
from m3node.intake.series.manifest import Manifest, read_manifest
from m3node.layout import DataLayout
from ports import free_port

CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.5"]


def delivering(name: str, ae_title: str, port: int, *, callers: Iterable[str] = ("PACS",), more: str = "") -> str:
    """The settings of a node that delivers to one destination, without much waiting; ``more`` is of the destination."""
    known = ", ".join(f'{{ae_title = "{caller}"}}' for caller in callers)
    return f"""
[listener]
receivers = 1
callers = [{known}]
[completeness]
quiet_seconds = 1
[delivery]
retry_first_seconds = 0.5
[[destinations]]
name = "{name}"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
{more}
"""


class ServedNode:
    """``m3node serve`` as a process group of its own.

    Parameters
    ----------
    root : Path
        Gets the settings file, the log and the data folder.
    toml : str
        More settings.
    environment : mapping, optional
        More environment.
    command : str
        ``listen``: that role alone; the others are begun one by one (`begin`).
    """

    def __init__(
        self, root: Path, toml: str, environment: Mapping[str, str] | None = None, command: str = "serve"
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.layout = DataLayout(root / "data")
        self.environment = dict(environment or {})
        self.port = free_port()
        self.config = root / "m3node.toml"
        # A test does with the disk that it has.
        disk = "" if "[disk]" in toml else "\n[disk]\nwarn_free_mb = 0.0\nrefuse_free_mb = 0.0\n"
        self.config.write_text(f'data_dir = "{self.layout.root}"\n{toml}{disk}')
        self.log_file = root / "log"
        self._ready_file = root / "ready"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._roles: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._ready_file.unlink(missing_ok=True)
        listener = ("--port", str(self.port), "--ready-file", str(self._ready_file))
        self._process = self._popen(self._command, *listener)
        self.until(self._ready_file.exists)
        assert json.loads(self._ready_file.read_text())["port"] == self.port

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start another role on the same settings."""
        self._roles.append(self._popen(*words))
        return self._roles[-1]

    def _popen(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")}
        if "drain_seconds" not in self.config.read_text():
            environment["M3NODE_JOBS__DRAIN_SECONDS"] = "10"  # nobody waits for what a test left open
        if "[web]" not in self.config.read_text():
            environment["M3NODE_WEB__ENABLED"] = "false"  # many nodes, one port
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "m3node", *words, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment, **self.environment},
            )

    def says(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the same settings to its end."""
        command = [sys.executable, "-m", "m3node", *words, "--config", str(self.config)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env={**environment, **self.environment}
        )

    def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait until something is so; fail with the log's end when it is not so in time or the node ends before."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process.poll() is None, f"the node ended:\n{self.log[-3000:]}"
            assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s:\n{self.log[-3000:]}"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM, *, group: bool = False) -> int:
        """Stop in order, by a signal to the first process or, as a terminal does, to all; return the exit status."""
        assert self._process is not None
        if group:
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        return self._process.wait()

    def kill(self) -> None:
        """Kill every process of the node at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def clean_up(self) -> None:
        """Leave nothing running, however the test ended."""
        for process in (self._process, *self._roles):
            if process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @property
    def pid(self) -> int:
        """The first process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What all of its processes said."""
        return self.log_file.read_text(encoding="utf-8")

    def answered(self, run: str) -> bool:
        """Whether a run is over and its record written."""
        return (self.layout.results / run / "run.json").exists()

    def findings(self, run: str) -> dict[str, Any]:
        """What a run found, or why there was none."""
        return dict(json.loads((self.layout.results / run / "findings.json").read_text()))

    @property
    def manifests(self) -> list[Manifest]:
        """All generations, oldest first."""
        found = [read_manifest(path) for path in self.layout.manifests.glob("*.json")]
        return sorted(found, key=lambda manifest: (manifest.stack, manifest.generation))

    def manifests_of(self, series: str) -> list[Manifest]:
        """The generations of a series."""
        return [manifest for manifest in self.manifests if manifest.stack.series_instance_uid == series]

    def settled(self, series: str, files: int) -> bool:
        """Whether so many files of a series are there and everything about them is answered."""
        folders = spooled_series(self.layout.spool).get(series, [])
        settled = Index(self.layout.index).settled(series)
        return settled is not None and len(series_files(folders)) == files == settled.files

    @property
    def listens(self) -> bool:
        """Whether a connection is taken right now."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def associate(self, calling: str = "PACS", sop_classes: Iterable[str] = (CT, SEG)) -> Association:
        """Open an association."""
        # Whatever ran before in this process: files go as they are, neither decoded nor encoded again.
        _config.STORE_SEND_CHUNKED_DATASET = True
        ae = AE(ae_title=calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
        for sop_class in sop_classes:
            for syntax in SYNTAXES:
                ae.add_requested_context(UID(sop_class), UID(syntax))
        association = ae.associate("127.0.0.1", self.port, ae_title="M3NODE")
        if not association.is_established:
            # A rejection that came before pynetdicom's thread woke, which waits for the connection, is left unread.
            answer = association.dul.receive_pdu(wait=False)
            association.is_rejected |= isinstance(answer, A_ASSOCIATE) and bool(answer.result)
        return association

    def send(self, *files: Path, calling: str = "PACS") -> None:
        """Send files over one association; every one must be acknowledged."""
        association = self.associate(calling)
        assert association.is_established, self.log
        for file in files:
            assert association.send_c_store(file).Status == 0x0000, self.log
        association.release()


@contextmanager
def serving(root: Path, toml: str) -> Iterator[ServedNode]:
    """Start a node, and insist in the end that it stops in order and met nothing unexpected."""
    import audited  # benchmarks use nodes too, without what validates XML

    node = ServedNode(root, toml)
    try:
        node.start()
        yield node
        assert node.stop() == 0, node.log[-3000:]
        assert "Traceback" not in node.log
        assert "unexpected" not in node.log
        assert audited.invalid(node.layout.audit) == []
    finally:
        node.clean_up()
